"""Check that a Triton model repository is complete and agrees with itself."""

from collections.abc import Callable
from pathlib import Path

from tritonclient.grpc import model_config_pb2 as triton

from mstkd_serve.calibration import CALIBRATION_KEY, Calibration
from mstkd_serve.contract import FaceContract
from mstkd_serve.errors import MstkdError, RepositoryError
from mstkd_serve.golden import GoldenRecord
from mstkd_serve.graph import INPUT_NAME, OUTPUT_NAME, read_metadata
from mstkd_serve.model_kind import Kind, kind_of
from mstkd_serve.repository.backend import MODEL_FILE, PLAN_FILE
from mstkd_serve.repository.config import (
    CONFIG_FILE,
    WARMUP_FILE,
    WARMUP_FOLDER,
    parameters_of,
    read_config,
)
from mstkd_serve.repository.options import FACE_BYTES, Target
from mstkd_serve.repository.scheduling import PLATFORM

_FACE_DIMS = [112, 112, 3]
Expect = Callable[[bool, str], None]


def check_repository(folder: Path) -> dict[str, FaceContract]:
    """Check every model of a repository.

    Returns:
        The contract of each model by name.

    Raises:
        RepositoryError: Lists everything that is wrong, a line each.
    """
    if not folder.is_dir():
        raise RepositoryError(
            f"{folder}: no such folder. Build one with 'mstkd-serve repo build --out {folder}'."
        )
    models = sorted(path for path in folder.iterdir() if path.is_dir())
    if not models:
        raise RepositoryError(
            f"{folder}: holds no model. Build it with 'mstkd-serve repo build --out {folder}'."
        )
    contracts: dict[str, FaceContract] = {}
    problems: list[str] = []
    for model in models:
        try:
            contracts[model.name] = _check_model(model, problems)
        except MstkdError as error:
            problems.append(str(error))
    if problems:
        raise RepositoryError("\n".join(problems))
    return contracts


def _check_model(folder: Path, problems: list[str]) -> FaceContract:
    """Check one model; add what is wrong with it to `problems`."""
    path = folder / CONFIG_FILE
    config = read_config(path)
    parameters = parameters_of(config)
    contract = FaceContract.from_metadata(parameters, source=str(path))
    if contract is None:
        raise RepositoryError(
            f"{path}: carries no contract. Build it with 'mstkd-serve repo build'."
        )
    kind = kind_of(parameters, source=str(path))

    def expect(holds: bool, problem: str) -> None:
        if not holds:
            problems.append(f"{path}: {problem}")

    expect(config.name == folder.name, f"its name is {config.name!r}, its folder {folder.name!r}")
    expect(config.max_batch_size >= 1, "max_batch_size must be at least 1")
    if kind is Kind.EMBEDDING:
        _check_embedding(config, contract, expect)
    calibration = Calibration.from_metadata(parameters, contract_id=contract.id, source=str(path))
    versions = [entry for entry in folder.iterdir() if entry.is_dir() and entry.name.isdecimal()]
    expect(bool(versions), f"no version folder such as {folder / '1'}")
    if config.platform == PLATFORM:
        _check_steps(config, folder.parent, expect)
        return contract
    targets = [target.value for target in Target]
    expect(config.backend in targets, f"backend {config.backend!r} is none of {targets}")
    expect(config.HasField("dynamic_batching"), "dynamic batching is off")
    _check_warmup(config, folder, expect)
    several = any("@" in key for key in parameters)
    for version in versions:
        own_key = f"{CALIBRATION_KEY}@{version.name}"
        own = {CALIBRATION_KEY: parameters[own_key]} if own_key in parameters else {}
        expected = (
            Calibration.from_metadata(own, contract_id=contract.id, source=str(path))
            if several
            else calibration
        )
        _check_version(version, kind, config.backend, contract, expected, problems)
    for number in config.version_policy.specific.versions:
        expect((folder / str(number)).is_dir(), f"it serves version {number}, which is not there")
    return contract


def _check_embedding(config: triton.ModelConfig, contract: FaceContract, expect: Expect) -> None:
    expect(
        [(value.name, value.data_type, list(value.dims)) for value in config.input]
        == [(INPUT_NAME, triton.TYPE_UINT8, _FACE_DIMS)],
        f"its input must be {INPUT_NAME!r} TYPE_UINT8 {_FACE_DIMS}",
    )
    expect(
        (OUTPUT_NAME, triton.TYPE_FP32, [contract.embedding_dim])
        in [(value.name, value.data_type, list(value.dims)) for value in config.output],
        f"its output must be {OUTPUT_NAME!r} TYPE_FP32 [{contract.embedding_dim}]",
    )


def _check_steps(config: triton.ModelConfig, repository: Path, expect: Expect) -> None:
    """Check that every step of a Triton ensemble names a model here and tensors that it has."""
    expect(bool(config.ensemble_scheduling.step), "it has no steps")
    for step in config.ensemble_scheduling.step:
        path = repository / step.model_name / CONFIG_FILE
        if not path.is_file():
            expect(False, f"its step {step.model_name!r} is no model of this repository")
            continue
        part = read_config(path)
        expect(
            set(step.input_map) == {value.name for value in part.input},
            f"its step {step.model_name!r} feeds {sorted(step.input_map)}",
        )
        expect(
            set(step.output_map) <= {value.name for value in part.output},
            f"its step {step.model_name!r} reads {sorted(step.output_map)}",
        )
        expect(
            config.max_batch_size <= part.max_batch_size,
            f"its max_batch_size {config.max_batch_size} is above that of {step.model_name!r}",
        )


def _check_warmup(config: triton.ModelConfig, folder: Path, expect: Expect) -> None:
    path = folder / WARMUP_FOLDER / WARMUP_FILE
    from_file = [
        value
        for warmup in config.model_warmup
        for value in warmup.inputs.values()
        if value.input_data_file
    ]
    if from_file:
        expect(
            path.is_file() and path.stat().st_size == FACE_BYTES,
            f"warm-up data {path} is missing or not {FACE_BYTES} bytes",
        )


def _check_version(
    version: Path,
    kind: Kind,
    backend: str,
    contract: FaceContract,
    calibration: Calibration | None,
    problems: list[str],
) -> None:
    onnx_file = version / MODEL_FILE
    metadata = read_metadata(onnx_file)
    beside = {Target.PYTHON.value: "model.py", Target.TENSORRT.value: PLAN_FILE}.get(backend)
    if beside is not None and not (version / beside).is_file():
        problems.append(f"{version / beside}: missing")
    if kind is Kind.COMPARE:  # what it compares is in its config alone
        return
    stored = FaceContract.from_metadata(metadata, source=str(onnx_file))
    if stored != contract:
        problems.append(
            f"{onnx_file}: its contract id is {stored.id if stored else 'missing'}, "
            f"the config's is {contract.id}"
        )
    if kind is Kind.EMBEDDING:
        GoldenRecord.from_metadata(metadata, source=str(onnx_file))
        inside = Calibration.from_metadata(metadata, contract_id=contract.id, source=str(onnx_file))
        if inside != calibration:
            problems.append(f"{onnx_file}: its calibration is not the config's")
