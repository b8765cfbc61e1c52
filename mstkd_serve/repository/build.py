"""Write a Triton model repository, whole or not at all."""

import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mstkd_serve.contract import FaceContract, Preprocessing
from mstkd_serve.errors import RepositoryError
from mstkd_serve.graph import match_teachers, read_adaptor
from mstkd_serve.repository.backend import MODEL_FILE
from mstkd_serve.repository.check import check_repository
from mstkd_serve.repository.config import CONFIG_FILE
from mstkd_serve.repository.models import FIRST_VERSION, Embedder, ModelWriter
from mstkd_serve.repository.options import ServingOptions, Target

STUDENT: Final = "student"
ENSEMBLE: Final = "ensemble"
ADAPTOR: Final = "adaptor"
VERIFY: Final = "verify"
COMPARE: Final = "compare"
_MODEL_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")


@dataclass(frozen=True)
class Projection:
    """The teacher-projection path: what `ensemble` is made of.

    Attributes:
        teachers: ONNX file of each teacher, in the adaptor's order.
        adaptor: ONNX file of the adaptor.
        as_steps: Whether it becomes a Triton ensemble of the teachers' models and the adaptor's,
            whose weights are then loaded once, instead of one fused graph.
    """

    teachers: Sequence[Path]
    adaptor: Path
    as_steps: bool = False


def build_repository(
    models: Mapping[str, Path],
    out: Path,
    *,
    target: Target,
    preprocessing: Preprocessing | None = None,
    options: ServingOptions | None = None,
    projection: Projection | None = None,
    verify: bool = False,
    replace: bool = False,
) -> dict[str, FaceContract]:
    """Build a model repository from recogniser ONNX files.

    Each model becomes `NAME/config.pbtxt`, `NAME/1/model.onnx` (with `model.py` beside it for the
    python target, `model.plan` for tensorrt) and `NAME/warmup/golden_face.raw`. Everything is
    written to a folder aside, checked, and renamed to `out`.

    Args:
        models: ONNX file of each model name; float32 networks and served graphs are both taken.
        out: Folder to create.
        target: The Triton backend.
        preprocessing: The contract of files that carry none.
        options: Batching, instances and threads; defaults where None.
        projection: Teachers and adaptor. They become models of their own and `ensemble`.
        verify: Whether to add `verify` beside `student` and `verify_ensemble` beside `ensemble`.
        replace: Whether an existing model repository at `out` may be replaced.

    Returns:
        The contract of each model.

    Raises:
        RepositoryError: A name cannot be a model name, `out` exists and may not be replaced, or
            the target cannot do what the options ask for.
        GraphError: An ONNX file cannot be served, or teachers and adaptor do not belong together.
        ContractError: The contract of a file is unknown or contradicted.
    """
    options = options or ServingOptions()
    _check_request(models, target, options)
    _check_destination(out, replace)
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    try:
        aside.chmod(0o755)
        writer = ModelWriter(aside, target, options)
        embedders = {
            name: writer.embedder(name, source, preprocessing) for name, source in models.items()
        }
        if projection is not None:
            embedders |= _write_projection(writer, projection, preprocessing)
        if verify:
            _write_verification(writer, embedders)
        contracts = check_repository(aside)
        _swap(aside, out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return contracts


def _check_request(models: Mapping[str, Path], target: Target, options: ServingOptions) -> None:
    if not models:
        raise RepositoryError("no model was given. Give at least --student MODEL.onnx.")
    for name in models:
        if not _MODEL_NAME.fullmatch(name):
            raise RepositoryError(
                f"model name {name!r}: use lower-case letters, digits, '_', '-' and '.', "
                "beginning with a letter or digit, at most 64."
            )
    try:
        options.require_target(target)
    except ValueError as error:
        raise RepositoryError(f"{error}.") from error


def _write_projection(
    writer: ModelWriter, projection: Projection, preprocessing: Preprocessing | None
) -> dict[str, Embedder]:
    """Write teachers, adaptor and ensemble; returns the embedders by name."""
    adaptor = read_adaptor(projection.adaptor)
    taken = {path.name for path in writer.folder.iterdir()}
    names = [teacher.name for teacher in adaptor.teachers]
    if twice := sorted(taken & {*names, ADAPTOR, ENSEMBLE}):
        raise RepositoryError(
            f"{projection.adaptor}: teachers and adaptor would make another model "
            f"{', '.join(twice)}. Leave out the --model of that name."
        )
    if len(projection.teachers) != len(names):
        raise RepositoryError(
            f"{projection.adaptor}: the adaptor has the {len(names)} teachers "
            f"{', '.join(names)}; {len(projection.teachers)} --teacher were given."
        )
    written = {
        name: writer.embedder(name, source, preprocessing)
        for name, source in zip(names, projection.teachers, strict=True)
    }
    given = {
        source: written[name].contract
        for name, source in zip(names, projection.teachers, strict=True)
    }
    if len(given) != len(names):
        raise RepositoryError("the same file was given as two --teacher.")
    match_teachers(adaptor, given)
    graphs = {
        teacher: writer.folder / teacher.name / FIRST_VERSION / MODEL_FILE
        for teacher in adaptor.teachers
    }
    writer.adaptor(ADAPTOR, adaptor)
    ensemble = writer.fused(ENSEMBLE, adaptor, graphs)  # also proves that the parts fit
    if projection.as_steps:
        shutil.rmtree(writer.folder / ENSEMBLE)
        ensemble = writer.steps(ENSEMBLE, adaptor, ADAPTOR, ensemble.golden)
    return written | {ENSEMBLE: ensemble}


def _write_verification(writer: ModelWriter, embedders: Mapping[str, Embedder]) -> None:
    for embedder_name, suffix in ((STUDENT, ""), (ENSEMBLE, f"_{ENSEMBLE}")):
        if (embedder := embedders.get(embedder_name)) is not None:
            writer.compare(COMPARE + suffix, embedder)
            writer.verify(VERIFY + suffix, embedder_name, COMPARE + suffix, embedder)


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
