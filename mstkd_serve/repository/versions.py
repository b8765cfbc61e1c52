"""Several versions of one model in a repository, and which of them are served.

The served versions stand in the config's version policy (`specific`), so a version that was added
waits until it is promoted. All versions of a model share one face contract: a caller who names
the model may be answered by any of them. What differs from version to version, golden embeddings
and calibration, stands in the config under a key that ends in `@VERSION`; the plain key holds that
of the highest version served, which is the one that answers whoever names no version.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tritonclient.grpc import model_config_pb2 as triton

from mstkd_serve.calibration import CALIBRATION_KEY
from mstkd_serve.contract import FaceContract
from mstkd_serve.errors import RepositoryError
from mstkd_serve.files import atomic_path
from mstkd_serve.model_kind import Kind, kind_of
from mstkd_serve.repository.backend import MODEL_FILE
from mstkd_serve.repository.config import (
    CONFIG_FILE,
    PRECISION_KEY,
    parameters_of,
    read_config,
    render_config,
)
from mstkd_serve.repository.models import Embedder, ModelWriter, read_embedder
from mstkd_serve.repository.options import Device, GpuPrecision, ServingOptions, Target

PREVIOUS_KEY = "mstkd.previous_versions"


@dataclass(frozen=True)
class Versions:
    """Versions of one model.

    Attributes:
        present: All that are in the repository, rising.
        served: Those that a server loads, rising.
    """

    present: tuple[int, ...]
    served: tuple[int, ...]


def add_version(repository: Path, model: str, source: Path) -> int:
    """Add a version to a model; it is not served until it is promoted.

    Args:
        repository: The model repository.
        model: Name of an embedding model in it.
        source: ONNX file of the new version; a served graph, or a network with a contract in its
            metadata.

    Returns:
        The number of the new version.

    Raises:
        RepositoryError: There is no such model, it can have no versions, or the new version has
            another face contract.
        GraphError: The file cannot be served.
        ContractError: The file carries no contract.
    """
    folder, config = _open(repository, model)
    contract = _contract(folder, config)
    number = max(_present(folder), default=0) + 1
    aside = Path(tempfile.mkdtemp(dir=repository.parent, prefix=f".{repository.name}."))
    try:
        writer = ModelWriter(aside, Target(config.backend), _options(config))
        written = read_embedder(writer.write_graph(model, str(number), source, None))
        if written.contract != contract:
            raise RepositoryError(
                f"{source}: its contract {written.contract.id} is not that of {model!r} "
                f"({contract.id}): embeddings of two versions would be incomparable. Serve it "
                "under a name of its own (repo build --model NAME=FILE)."
            )
        with _rewriting(folder) as config:
            _serve(config, folder, _served(config, folder))  # pin them before there is one more
        (aside / model / str(number)).rename(folder / str(number))
        with _rewriting(folder) as config:
            _serve(config, folder, _served(config, folder))
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return number


def promote(repository: Path, model: str, version: int, *, beside: bool = False) -> Versions:
    """Serve a version from the next (re)load on.

    Args:
        repository: The model repository.
        model: Name of an embedding model in it.
        version: The version.
        beside: Whether the versions served so far stay, for a comparison side by side. Callers
            who name no version are answered by the highest.

    Raises:
        RepositoryError: There is no such model or version, or `verify` decides by another
            version's threshold.
    """
    folder, config = _open(repository, model)
    if version not in _present(folder):
        have = ", ".join(map(str, _present(folder)))
        raise RepositoryError(f"{folder}: has no version {version}; it has {have}.")
    before = _served(config, folder)
    served = sorted({version, *before} if beside else {version})
    _require_same_decision(repository, model, folder, served[-1], before[-1])
    with _rewriting(folder) as config:
        if list(before) != served:
            config.parameters[PREVIOUS_KEY].string_value = ",".join(map(str, before))
        _serve(config, folder, tuple(served))
    return Versions(_present(folder), tuple(served))


def rollback(repository: Path, model: str) -> Versions:
    """Serve what was served before the last promotion, from the next (re)load on.

    Raises:
        RepositoryError: There is no such model, or nothing was promoted.
    """
    folder, config = _open(repository, model)
    text = parameters_of(config).get(PREVIOUS_KEY, "")
    previous = tuple(int(part) for part in text.split(",") if part)
    if not previous:
        raise RepositoryError(f"{folder}: nothing was promoted yet, so there is no way back.")
    before = _served(config, folder)
    _require_same_decision(repository, model, folder, previous[-1], before[-1])
    with _rewriting(folder) as config:
        config.parameters[PREVIOUS_KEY].string_value = ",".join(map(str, before))
        _serve(config, folder, previous)
    return Versions(_present(folder), previous)


def versions_of(repository: Path, model: str) -> Versions:
    """Return a model's versions.

    Raises:
        RepositoryError: There is no such model.
    """
    folder, config = _open(repository, model)
    return Versions(_present(folder), _served(config, folder))


def _open(repository: Path, model: str) -> tuple[Path, triton.ModelConfig]:
    folder = repository / model
    if not (folder / CONFIG_FILE).is_file():
        known = ", ".join(sorted(path.parent.name for path in repository.glob(f"*/{CONFIG_FILE}")))
        raise RepositoryError(f"{repository}: has no model {model!r}; it has {known or 'none'}.")
    config = read_config(folder / CONFIG_FILE)
    kind = kind_of(parameters_of(config), source=str(folder / CONFIG_FILE))
    if kind is not Kind.EMBEDDING or not config.backend or len(config.output) > 1:
        raise RepositoryError(
            f"{folder}: only students, teachers and other single networks have versions. Build "
            "the repository again for the ensemble mode."
        )
    return folder, config


def _contract(folder: Path, config: triton.ModelConfig) -> FaceContract:
    contract = FaceContract.from_metadata(parameters_of(config), source=str(folder / CONFIG_FILE))
    if contract is None:
        raise RepositoryError(f"{folder / CONFIG_FILE}: carries no contract. Build it again.")
    return contract


def _present(folder: Path) -> tuple[int, ...]:
    numbers = (int(path.name) for path in folder.iterdir() if path.name.isdecimal())
    return tuple(sorted(numbers))


def _served(config: triton.ModelConfig, folder: Path) -> tuple[int, ...]:
    """Return what the version policy serves; Triton's default is the highest alone."""
    present = _present(folder)
    policy = config.version_policy
    if policy.HasField("specific"):
        return tuple(sorted(policy.specific.versions))
    if policy.HasField("all"):
        return present
    return present[-(policy.latest.num_versions or 1) :]


def _serve(config: triton.ModelConfig, folder: Path, served: tuple[int, ...]) -> None:
    """Write the policy and what belongs to each version into a config."""
    config.version_policy.specific.versions[:] = served
    for key in [key for key in config.parameters if "@" in key]:
        del config.parameters[key]
    for number in _present(folder):
        for key, value in _own_facts(_embedder(folder, number)).items():
            config.parameters[f"{key}@{number}"].string_value = value
    config.parameters.pop(CALIBRATION_KEY, None)
    for key, value in _own_facts(_embedder(folder, served[-1])).items():
        config.parameters[key].string_value = value


def _own_facts(embedder: Embedder) -> dict[str, str]:
    calibration = embedder.calibration.metadata() if embedder.calibration else {}
    return embedder.golden.metadata() | calibration


def _embedder(folder: Path, number: int) -> Embedder:
    return read_embedder(folder / str(number) / MODEL_FILE)


def _require_same_decision(repository: Path, model: str, folder: Path, new: int, old: int) -> None:
    """Refuse a new threshold while `verify` has the old one built in."""
    users = [
        path.parent.name
        for path in repository.glob(f"*/{CONFIG_FILE}")
        if any(step.model_name == model for step in read_config(path).ensemble_scheduling.step)
        and kind_of(parameters_of(read_config(path)), source=str(path)) is Kind.VERIFY
    ]
    calibrations = [_embedder(folder, number).calibration for number in (old, new)]
    thresholds = [None if each is None else each.threshold for each in calibrations]
    if users and thresholds[0] != thresholds[1]:
        raise RepositoryError(
            f"{repository / users[0]}: decides by version {old}'s threshold {thresholds[0]}; "
            f"version {new} has {thresholds[1]}. Build the repository again, or without verify "
            "(repo build --no-verify)."
        )


def _options(config: triton.ModelConfig) -> ServingOptions:
    """Return the options that a version's own files depend on."""
    on_gpu = config.instance_group[0].kind == triton.ModelInstanceGroup.KIND_GPU
    precision = parameters_of(config).get(PRECISION_KEY)
    return ServingOptions(
        device=Device.GPU if on_gpu else Device.CPU,
        max_batch_size=config.max_batch_size,
        gpu_precision=GpuPrecision.FP16 if precision == GpuPrecision.FP16 else GpuPrecision.FP32,
    )


@contextmanager
def _rewriting(folder: Path) -> Iterator[triton.ModelConfig]:
    """Yield the config; write it back in one step."""
    path = folder / CONFIG_FILE
    config = read_config(path)
    yield config
    with atomic_path(path) as temporary:
        temporary.write_text(render_config(config), encoding="utf-8")
