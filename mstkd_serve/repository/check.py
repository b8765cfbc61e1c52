"""Check that a Triton model repository is complete and agrees with itself."""

from pathlib import Path

from tritonclient.grpc import model_config_pb2 as triton

from mstkd_serve.calibration import Calibration
from mstkd_serve.contract import FaceContract
from mstkd_serve.errors import MstkdError, RepositoryError
from mstkd_serve.golden import GoldenRecord
from mstkd_serve.graph import INPUT_NAME, OUTPUT_NAME, read_metadata
from mstkd_serve.repository.config import (
    CONFIG_FILE,
    MODEL_FILE,
    WARMUP_FOLDER,
    Target,
    parameters_of,
    read_config,
)

_FACE_DIMS = [112, 112, 3]
_FACE_BYTES = 112 * 112 * 3


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
    config = read_config(folder / CONFIG_FILE)
    contract = FaceContract.from_metadata(parameters_of(config), source=str(folder / CONFIG_FILE))
    if contract is None:
        raise RepositoryError(
            f"{folder / CONFIG_FILE}: carries no contract. Build it with 'mstkd-serve repo build'."
        )

    def expect(holds: bool, problem: str) -> None:
        if not holds:
            problems.append(f"{folder / CONFIG_FILE}: {problem}")

    expect(config.name == folder.name, f"its name is {config.name!r}, its folder {folder.name!r}")
    targets = [target.value for target in Target]
    expect(config.backend in targets, f"backend {config.backend!r} is none of {targets}")
    expect(config.max_batch_size >= 1, "max_batch_size must be at least 1")
    expect(config.HasField("dynamic_batching"), "dynamic batching is off")
    expect(
        [(value.name, value.data_type, list(value.dims)) for value in config.input]
        == [(INPUT_NAME, triton.TYPE_UINT8, _FACE_DIMS)],
        f"its input must be {INPUT_NAME!r} TYPE_UINT8 {_FACE_DIMS}",
    )
    expect(
        [(value.name, value.data_type, list(value.dims)) for value in config.output]
        == [(OUTPUT_NAME, triton.TYPE_FP32, [contract.embedding_dim])],
        f"its output must be {OUTPUT_NAME!r} TYPE_FP32 [{contract.embedding_dim}]",
    )
    for warmup in config.model_warmup:
        for value in warmup.inputs.values():
            path = folder / WARMUP_FOLDER / value.input_data_file
            expect(
                path.is_file() and path.stat().st_size == _FACE_BYTES,
                f"warm-up data {path} is missing or not {_FACE_BYTES} bytes",
            )
    calibration = Calibration.from_metadata(
        parameters_of(config), contract_id=contract.id, source=str(folder / CONFIG_FILE)
    )
    _check_versions(folder, config.backend, contract, calibration, problems)
    return contract


def _check_versions(
    folder: Path,
    backend: str,
    contract: FaceContract,
    calibration: Calibration | None,
    problems: list[str],
) -> None:
    versions = [path for path in folder.iterdir() if path.is_dir() and path.name.isdecimal()]
    if not versions:
        problems.append(f"{folder}: has no version folder such as {folder / '1'}")
    for version in versions:
        onnx_file = version / MODEL_FILE
        metadata = read_metadata(onnx_file)
        stored = FaceContract.from_metadata(metadata, source=str(onnx_file))
        if stored != contract:
            problems.append(
                f"{onnx_file}: its contract id is {stored.id if stored else 'missing'}, "
                f"the config's is {contract.id}"
            )
        GoldenRecord.from_metadata(metadata, source=str(onnx_file))
        inside = Calibration.from_metadata(metadata, contract_id=contract.id, source=str(onnx_file))
        if inside != calibration:
            problems.append(f"{onnx_file}: its calibration is not the config's")
        if backend == Target.PYTHON and not (version / "model.py").is_file():
            problems.append(f"{version / 'model.py'}: missing")
