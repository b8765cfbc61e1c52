"""Write one model of a repository into its folder: graph, config, warm-up data."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

from tritonclient.grpc import model_config_pb2 as triton

from mstkd_serve.calibration import Calibration
from mstkd_serve.contract import FaceContract, Preprocessing
from mstkd_serve.golden import GoldenRecord, golden_faces
from mstkd_serve.graph import (
    ACCEPTED_NAME,
    AGREEMENT_NAME,
    OUTPUT_NAME,
    SCORE_NAME,
    THRESHOLD_NAME,
    AdaptorGraph,
    Teacher,
    build_served_graph,
    fuse,
    read_metadata,
    write_compare_graph,
)
from mstkd_serve.model_kind import Kind
from mstkd_serve.repository.backend import MODEL_FILE, PLAN_FILE, precision_of
from mstkd_serve.repository.config import (
    CONFIG_FILE,
    FACES,
    PRECISION_KEY,
    WARMUP_FILE,
    WARMUP_FOLDER,
    Tensor,
    embedding_tensor,
    facts,
    model_config,
    render_config,
)
from mstkd_serve.repository.options import CpuPrecision, ServingOptions, Target
from mstkd_serve.repository.plan import build_plan
from mstkd_serve.repository.scheduling import (
    FIRST_EMBEDDING,
    SECOND_EMBEDDING,
    ensemble_config,
    verify_config,
)

FIRST_VERSION = "1"


@dataclass(frozen=True)
class Embedder:
    """A model that embeds faces: what the others in the repository need to know of it."""

    contract: FaceContract
    golden: GoldenRecord
    calibration: Calibration | None = None


@dataclass(frozen=True)
class ModelWriter:
    """Writes models into a repository's folder.

    Attributes:
        folder: The repository's folder.
        target: The backend of its models.
        options: How they are served.
    """

    folder: Path
    target: Target
    options: ServingOptions

    def embedder(self, name: str, source: Path, preprocessing: Preprocessing | None) -> Embedder:
        """Write a student, a teacher, or any other recogniser."""
        onnx_file = self.write_graph(name, FIRST_VERSION, source, preprocessing)
        written = read_embedder(onnx_file)
        outputs = (embedding_tensor(OUTPUT_NAME, written.contract.embedding_dim),)
        self._embedding(name, outputs, written)
        return written

    def write_graph(
        self, name: str, version: str, source: Path, preprocessing: Preprocessing | None
    ) -> Path:
        """Write the served graph of one version of a model; returns its ONNX file."""
        onnx_file = self._version(name, version) / MODEL_FILE
        build_served_graph(source, onnx_file, preprocessing=preprocessing)
        self._finish(onnx_file)
        return onnx_file

    def fused(self, name: str, adaptor: AdaptorGraph, teachers: Mapping[Teacher, Path]) -> Embedder:
        """Write the teacher-projection path as one graph."""
        onnx_file = self._version(name) / MODEL_FILE
        golden = fuse(adaptor, teachers, onnx_file)
        written = Embedder(adaptor.contract, golden, adaptor.calibration)
        self._finish(onnx_file)
        self._embedding(name, projection_outputs(adaptor), written)
        return written

    def adaptor(self, name: str, adaptor: AdaptorGraph) -> None:
        """Write the adaptor alone."""
        onnx_file = self._version(name) / MODEL_FILE
        adaptor.save(onnx_file)
        inputs = tuple(
            embedding_tensor(teacher.part, teacher.embedding_dim) for teacher in adaptor.teachers
        )
        passed = (
            embedding_tensor(teacher.passed, teacher.embedding_dim) for teacher in adaptor.teachers
        )
        outputs = (*projection_outputs(adaptor)[:2], *passed)
        self._small(name, Kind.ADAPTOR, inputs, outputs, adaptor.contract)

    def steps(
        self, name: str, adaptor: AdaptorGraph, adaptor_model: str, golden: GoldenRecord
    ) -> Embedder:
        """Write the teacher-projection path as a Triton ensemble of models that are there."""
        written = Embedder(adaptor.contract, golden, adaptor.calibration)
        parameters = facts(
            Kind.EMBEDDING, written.contract, self.options, golden, written.calibration
        )
        config = ensemble_config(
            name,
            adaptor.teachers,
            adaptor_model,
            projection_outputs(adaptor),
            parameters | self._precision(),
            self.options,
        )
        self._scheduled(config)
        return written

    def compare(self, name: str, embedder: Embedder) -> None:
        """Write the comparison of an embedder's embeddings."""
        sides = (FIRST_EMBEDDING, SECOND_EMBEDDING)
        dim = embedder.contract.embedding_dim
        onnx_file = self._version(name) / MODEL_FILE
        write_compare_graph(onnx_file, sides, dim, embedder.calibration)
        inputs = tuple(embedding_tensor(side, dim) for side in sides)
        self._small(
            name,
            Kind.COMPARE,
            inputs,
            score_outputs(embedder.calibration),
            embedder.contract,
            embedder.calibration,
        )

    def verify(self, name: str, embedder_model: str, compare_model: str, of: Embedder) -> None:
        """Write verification by an embedder and a comparison that are there."""
        parameters = facts(Kind.VERIFY, of.contract, self.options, of.golden, of.calibration)
        config = verify_config(
            name,
            embedder_model,
            compare_model,
            score_outputs(of.calibration),
            parameters | self._precision(),
            self.options,
        )
        self._scheduled(config)

    def _precision(self) -> dict[str, str]:
        return {PRECISION_KEY: precision_of(self.target, self.options)}

    def _version(self, name: str, version: str = FIRST_VERSION) -> Path:
        folder = self.folder / name / version
        folder.mkdir(parents=True)
        return folder

    def _finish(self, onnx_file: Path) -> None:
        """Put beside a graph what its backend needs to run it."""
        if self.target is Target.PYTHON:
            with as_file(files("mstkd_serve.repository").joinpath("python_model.py")) as model_py:
                shutil.copyfile(model_py, onnx_file.with_name("model.py"))
        elif self.target is Target.TENSORRT:
            build_plan(onnx_file, onnx_file.with_name(PLAN_FILE), self.options)

    def _embedding(self, name: str, outputs: tuple[Tensor, ...], written: Embedder) -> None:
        parameters = facts(
            Kind.EMBEDDING, written.contract, self.options, written.golden, written.calibration
        )
        config = model_config(name, (FACES,), outputs, parameters, self.target, self.options)
        self._config(config)
        warmup = self.folder / name / WARMUP_FOLDER
        warmup.mkdir()
        (warmup / WARMUP_FILE).write_bytes(golden_faces()[0].tobytes())

    def _small(
        self,
        name: str,
        kind: Kind,
        inputs: tuple[Tensor, ...],
        outputs: tuple[Tensor, ...],
        contract: FaceContract,
        calibration: Calibration | None = None,
    ) -> None:
        """Finish a model that is not worth a TensorRT plan or engine."""
        target = Target.ONNXRUNTIME if self.target is Target.TENSORRT else self.target
        plain = {"tensorrt": False, "preferred_batch_sizes": (), "cpu_precision": CpuPrecision.FP32}
        options = self.options.model_copy(update=plain)
        if target is Target.PYTHON:
            self._finish(self.folder / name / FIRST_VERSION / MODEL_FILE)
        parameters = facts(kind, contract, options, calibration=calibration)
        self._config(model_config(name, inputs, outputs, parameters, target, options))

    def _scheduled(self, config: triton.ModelConfig) -> None:
        # Triton wants the version's folder and nothing in it; stores of objects drop empty ones.
        (self._version(config.name) / ".keep").touch()
        self._config(config)

    def _config(self, config: triton.ModelConfig) -> None:
        path = self.folder / config.name / CONFIG_FILE
        path.write_text(render_config(config), encoding="utf-8")


def read_embedder(onnx_file: Path) -> Embedder:
    """Read contract, golden embeddings and calibration from a served graph.

    Raises:
        ContractError: One of them is missing (the calibration may be) or malformed.
        GraphError: The file is missing or no ONNX file.
    """
    metadata = read_metadata(onnx_file)
    contract = FaceContract.from_metadata(metadata, source=str(onnx_file))
    assert contract is not None, "a served graph carries its contract"
    golden = GoldenRecord.from_metadata(metadata, source=str(onnx_file))
    calibration = Calibration.from_metadata(
        metadata, contract_id=contract.id, source=str(onnx_file)
    )
    return Embedder(contract, golden, calibration)


def projection_outputs(adaptor: AdaptorGraph) -> tuple[Tensor, ...]:
    """Return the outputs of the teacher-projection path: embedding, agreement, each teacher's."""
    return (
        embedding_tensor(OUTPUT_NAME, adaptor.contract.embedding_dim),
        embedding_tensor(AGREEMENT_NAME, 1),
        *(embedding_tensor(teacher.part, teacher.embedding_dim) for teacher in adaptor.teachers),
    )


def score_outputs(calibration: Calibration | None) -> tuple[Tensor, ...]:
    """Return the outputs of a comparison, with the decision where it is calibrated."""
    score = (Tensor(SCORE_NAME, triton.TYPE_FP32, (1,)),)
    if calibration is None:
        return score
    decision = Tensor(ACCEPTED_NAME, triton.TYPE_BOOL, (1,))
    return (*score, decision, Tensor(THRESHOLD_NAME, triton.TYPE_FP32, (1,)))
