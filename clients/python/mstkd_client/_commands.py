"""What the command line does: connect by any transport, write embeddings."""

import argparse
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from mstkd_client._blocking import BlockingFaceClient
from mstkd_client._local import LocalFaceClient
from mstkd_client._sync import FaceClient
from mstkd_client._types import Embeddings

_SETTINGS: Final = (
    "mode",
    "model_name",
    "model_version",
    "timeout",
    "tls",
    "tls_ca",
    "tls_cert",
    "tls_key",
    "config",
)


class BadArgument(Exception):  # noqa: N818
    """Arguments that do not go together, or an `--out` that cannot or must not be written."""


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """Return the keyword arguments of `FaceClient` that were given."""
    given = {name: getattr(options, name) for name in ("url", *_SETTINGS)}
    return {name: value for name, value in given.items() if value is not None}


def connect(options: argparse.Namespace) -> BlockingFaceClient:
    """Return a client of the server, or of the file that `--local` names."""
    given = settings(options)
    if options.local is None:
        return FaceClient(**given)
    timeout = given.pop("timeout", 30.0)
    if given:
        raise BadArgument(f"--local needs no server: leave out {', '.join(sorted(given))}.")
    return LocalFaceClient(options.local, timeout=timeout)


def embed(options: argparse.Namespace) -> int:
    """Write embeddings to an .npz or a Parquet file."""
    if options.out.suffix == ".parquet":
        return _embed_many(options)
    for name, usual in (("detector", None), ("engine", "local"), ("restart", False)):
        if getattr(options, name) != usual:
            raise BadArgument(f"--{name} goes with --out X.parquet.")
    out: Path = options.out
    _check_output(out, force=options.force)
    with connect(options) as client:
        embeddings = client.embed(options.source)
    _check_output(out, force=options.force)
    _write(out, embeddings, options.source)
    count, dim = embeddings.vectors.shape
    print(f"{out}: {count} embeddings of dimension {dim}, contract {embeddings.contract_id}")
    return 0


def _embed_many(options: argparse.Namespace) -> int:
    from mstkd_client.bulk import embed_files, show_progress

    if len(options.source) != 1:
        raise BadArgument(
            f"--out {options.out} takes one folder, or one text file with a path a line; "
            f"{len(options.source)} were given."
        )
    if options.local is not None and options.engine == "ray":
        raise BadArgument("--local runs in this process: leave out --engine ray.")
    options.after_interrupt = "; the same command goes on where it stopped"
    local = options.local
    with show_progress() as on_progress:
        result = embed_files(
            options.source[0],
            options.out,
            connect=settings(options) if local is None else lambda: LocalFaceClient(local),
            detector=options.detector,
            part_size=options.part_size,
            engine=options.engine,
            workers=options.workers,
            ray_address=options.ray_address,
            force=options.force,
            restart=options.restart,
            on_progress=on_progress,
        )
    print(f"{result.out}: {result.rows} embeddings of {result.files} files")
    if result.unreadable:
        print(f"{result.unreadable_report}: {result.unreadable} files gave no face")
    return 0


def _check_output(out: Path, *, force: bool) -> None:
    if out.is_dir():
        raise BadArgument(f"--out {out} is a folder. Name a file.")
    if not out.parent.is_dir():
        raise BadArgument(f"--out {out}: there is no folder {out.parent}. Create it first.")
    if out.exists() and not force:
        raise BadArgument(f"--out {out} exists. Give another name, or --force to overwrite it.")


def _write(out: Path, embeddings: Embeddings, names: Sequence[str]) -> None:
    """Write the file beside its place, then rename it: readers see all of it or nothing."""
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
        half = Path(folder) / "embeddings.npz"
        np.savez(
            half,
            vectors=embeddings.vectors,
            names=np.array([os.fspath(name) for name in names], dtype=np.str_),
            contract_id=np.array(embeddings.contract_id),
            model_name=np.array(embeddings.model_name),
            model_version=np.array(embeddings.model_version),
        )
        half.replace(out)
