"""Write a Triton model repository, whole or not at all."""

import re
import shutil
import tempfile
from collections.abc import Mapping
from importlib.resources import as_file, files
from pathlib import Path

from mstkd_serve.calibration import Calibration
from mstkd_serve.contract import FaceContract, Preprocessing
from mstkd_serve.errors import RepositoryError
from mstkd_serve.golden import GoldenRecord, golden_faces
from mstkd_serve.graph import build_served_graph, read_metadata
from mstkd_serve.repository.check import check_repository
from mstkd_serve.repository.config import (
    CONFIG_FILE,
    MODEL_FILE,
    WARMUP_FILE,
    WARMUP_FOLDER,
    ServingOptions,
    Target,
    model_config,
    render_config,
)

_MODEL_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")


def build_repository(
    models: Mapping[str, Path],
    out: Path,
    *,
    target: Target,
    preprocessing: Preprocessing | None = None,
    options: ServingOptions | None = None,
    replace: bool = False,
) -> dict[str, FaceContract]:
    """Build a model repository from recogniser ONNX files.

    Each model becomes `NAME/config.pbtxt`, `NAME/1/model.onnx` (with `model.py` beside it for the
    python target) and `NAME/warmup/golden_face.raw`. Everything is written to a folder aside,
    checked, and renamed to `out`.

    Args:
        models: ONNX file of each model name; float32 networks and served graphs are both taken.
        out: Folder to create.
        target: The Triton backend.
        preprocessing: The contract of files that carry none.
        options: Batching, instances and threads; defaults where None.
        replace: Whether an existing model repository at `out` may be replaced.

    Returns:
        The contract of each model.

    Raises:
        RepositoryError: A name cannot be a model name, or `out` exists and may not be replaced.
        GraphError: An ONNX file cannot be served.
        ContractError: The contract of a file is unknown or contradicted.
    """
    if not models:
        raise RepositoryError("no model was given. Give at least --student MODEL.onnx.")
    for name in models:
        if not _MODEL_NAME.fullmatch(name):
            raise RepositoryError(
                f"model name {name!r}: use lower-case letters, digits, '_', '-' and '.', "
                "beginning with a letter or digit, at most 64."
            )
    _check_destination(out, replace)
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    try:
        aside.chmod(0o755)
        contracts = {
            name: _write_model(
                aside / name, source, target, preprocessing, options or ServingOptions()
            )
            for name, source in models.items()
        }
        check_repository(aside)
        _swap(aside, out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return contracts


def _write_model(
    folder: Path,
    source: Path,
    target: Target,
    preprocessing: Preprocessing | None,
    options: ServingOptions,
) -> FaceContract:
    version = folder / "1"
    version.mkdir(parents=True)
    onnx_file = version / MODEL_FILE
    contract = build_served_graph(source, onnx_file, preprocessing=preprocessing)
    metadata = read_metadata(onnx_file)
    golden = GoldenRecord.from_metadata(metadata, source=str(onnx_file))
    calibration = Calibration.from_metadata(
        metadata, contract_id=contract.id, source=str(onnx_file)
    )
    config = model_config(folder.name, contract, golden, target, options, calibration)
    (folder / CONFIG_FILE).write_text(render_config(config), encoding="utf-8")
    warmup = folder / WARMUP_FOLDER
    warmup.mkdir()
    (warmup / WARMUP_FILE).write_bytes(golden_faces()[0].tobytes())
    if target is Target.PYTHON:
        with as_file(files("mstkd_serve.repository").joinpath("python_model.py")) as model_py:
            shutil.copyfile(model_py, version / "model.py")
    return contract


def _check_destination(out: Path, replace: bool) -> None:
    """Refuse to overwrite; a folder without any config is never taken for a repository."""
    if not out.exists():
        return
    if out.is_dir() and not any(out.iterdir()):
        return
    if not replace:
        raise RepositoryError(f"{out}: exists already. Give --replace, or another --out.")
    if not out.is_dir() or not any(out.glob(f"*/{CONFIG_FILE}")):
        raise RepositoryError(
            f"{out}: is not a model repository, so it is not replaced. Give another --out."
        )


def _swap(aside: Path, out: Path) -> None:
    """Put `aside` in the place of `out`."""
    if not out.exists():
        aside.rename(out)
        return
    old = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}.old."))
    out.rename(old / out.name)
    aside.rename(out)
    shutil.rmtree(old, ignore_errors=True)
