"""Triton ensembles: models that only pass tensors from one model to the next.

The rules (Triton's user guide, architecture, ensemble models,
https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/user_guide/ensemble_models.html):
platform `ensemble`, no instance group and no scheduler of its own, a version folder without a
file, and a `max_batch_size` that every step takes.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from tritonclient.grpc import model_config_pb2 as triton

from mstkd_serve.graph import AGREEMENT_NAME, INPUT_NAME, OUTPUT_NAME, Teacher
from mstkd_serve.repository.config import FACES, Tensor, add_tensors, set_parameters
from mstkd_serve.repository.options import ServingOptions

PLATFORM: Final = "ensemble"
FIRST_FACES: Final = "faces_a"
SECOND_FACES: Final = "faces_b"
FIRST_EMBEDDING: Final = "embedding_a"
SECOND_EMBEDDING: Final = "embedding_b"
_LATEST: Final = -1


def ensemble_config(
    name: str,
    teachers: Sequence[Teacher],
    adaptor: str,
    outputs: tuple[Tensor, ...],
    parameters: Mapping[str, str],
    options: ServingOptions,
) -> triton.ModelConfig:
    """Return the teacher-projection path as a Triton ensemble.

    Args:
        name: Its name.
        teachers: In the adaptor's order; their models have their names.
        adaptor: Name of the adaptor's model.
        outputs: `embedding`, `agreement`, and one `embedding_<group>` a teacher.
        parameters: What it tells about itself.
        options: `max_batch_size`.
    """
    config = _scheduled(name, (FACES,), outputs, parameters, options)
    for teacher in teachers:
        _step(config, teacher.name, {INPUT_NAME: INPUT_NAME}, {OUTPUT_NAME: teacher.name})
    _step(
        config,
        adaptor,
        {teacher.part: teacher.name for teacher in teachers},
        {name: name for name in (OUTPUT_NAME, AGREEMENT_NAME)}
        | {teacher.passed: teacher.part for teacher in teachers},
    )
    return config


def verify_config(
    name: str,
    embedder: str,
    comparer: str,
    outputs: tuple[Tensor, ...],
    parameters: Mapping[str, str],
    options: ServingOptions,
) -> triton.ModelConfig:
    """Return verification as a Triton ensemble: two batches of faces to one score a pair.

    Args:
        name: Its name.
        embedder: Model that embeds both batches; its weights are loaded once.
        comparer: Model that compares embeddings.
        outputs: The comparer's outputs.
        parameters: What it tells about itself.
        options: `max_batch_size`.
    """
    inputs = tuple(Tensor(side, FACES.kind, FACES.shape) for side in (FIRST_FACES, SECOND_FACES))
    config = _scheduled(name, inputs, outputs, parameters, options)
    sides = {FIRST_FACES: FIRST_EMBEDDING, SECOND_FACES: SECOND_EMBEDDING}
    for faces, embedding in sides.items():
        _step(config, embedder, {INPUT_NAME: faces}, {OUTPUT_NAME: embedding})
    both = {embedding: embedding for embedding in sides.values()}
    _step(config, comparer, both, {tensor.name: tensor.name for tensor in outputs})
    return config


def _scheduled(
    name: str,
    inputs: tuple[Tensor, ...],
    outputs: tuple[Tensor, ...],
    parameters: Mapping[str, str],
    options: ServingOptions,
) -> triton.ModelConfig:
    config = triton.ModelConfig(name=name, platform=PLATFORM, max_batch_size=options.max_batch_size)
    add_tensors(config, inputs, outputs)
    set_parameters(config, parameters)
    return config


def _step(
    config: triton.ModelConfig, model: str, inputs: Mapping[str, str], outputs: Mapping[str, str]
) -> None:
    step = config.ensemble_scheduling.step.add(model_name=model, model_version=_LATEST)
    step.input_map.update(inputs)
    step.output_map.update(outputs)
