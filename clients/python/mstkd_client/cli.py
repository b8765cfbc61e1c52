"""The command `mstkd-client`: embed files, verify two of them, ask what the server runs.

Exit status: 0 done, 2 a mistake or a server's error (one line on stderr), 130 interrupted.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np

from mstkd_client._errors import MstkdClientError
from mstkd_client._settings import DEFAULT_URL
from mstkd_client._sync import FaceClient
from mstkd_client._types import Embeddings

URL_VARIABLE: Final = "MSTKD_URL"


class _BadOutput(Exception):  # noqa: N818
    """`--out` names a place that cannot or must not be written."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: Its arguments; those of the process by default.

    Returns:
        The exit status: 0, 2 or 130.

    Raises:
        SystemExit: argparse refused the arguments (status 2) or printed help (status 0).
    """
    options = _parser().parse_args(arguments)
    try:
        client = FaceClient(options.url, model_name=options.model, timeout=options.timeout)
    except ValueError as error:
        return _fail(error)
    try:
        with client:
            options.run(client, options)
    except (MstkdClientError, _BadOutput, OSError) as error:
        return _fail(error)
    except KeyboardInterrupt:
        print("mstkd-client: interrupted", file=sys.stderr)
        return 130
    return 0


def _fail(error: Exception) -> int:
    print(f"mstkd-client: {' '.join(str(error).split())}", file=sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
    connection = argparse.ArgumentParser(add_help=False)
    connection.add_argument(
        "--url",
        default=os.environ.get(URL_VARIABLE) or DEFAULT_URL,
        help=f"host:port of Triton's gRPC endpoint (${URL_VARIABLE}, else {DEFAULT_URL})",
    )
    connection.add_argument("--model", default="student", help="model name (%(default)s)")
    connection.add_argument(
        "--timeout", type=float, default=30.0, help="seconds a call (%(default)s)"
    )
    parser = argparse.ArgumentParser(
        prog="mstkd-client", description="Embed and compare aligned 112x112 faces."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    embed = commands.add_parser("embed", parents=[connection], help="write embeddings to a file")
    embed.add_argument("files", nargs="+", metavar="FILE", help="aligned 112x112 RGB image")
    embed.add_argument(
        "--out",
        required=True,
        type=Path,
        metavar="X.npz",
        help="vectors, names, contract_id, model_name, model_version",
    )
    embed.add_argument("--force", action="store_true", help="overwrite the output file")
    embed.set_defaults(run=_embed)

    verify = commands.add_parser("verify", parents=[connection], help="score two faces")
    verify.add_argument("first", metavar="A", help="aligned 112x112 RGB image")
    verify.add_argument("second", metavar="B", help="aligned 112x112 RGB image")
    verify.add_argument("--json", action="store_true", help="print JSON")
    verify.set_defaults(run=_verify)

    info = commands.add_parser("info", parents=[connection], help="tell what the server runs")
    info.add_argument("--json", action="store_true", help="print JSON")
    info.set_defaults(run=_info)
    return parser


def _embed(client: FaceClient, options: argparse.Namespace) -> None:
    out: Path = options.out
    _check_output(out, force=options.force)
    embeddings = client.embed(options.files)
    _check_output(out, force=options.force)
    _write(out, embeddings, options.files)
    count, dim = embeddings.vectors.shape
    print(f"{out}: {count} embeddings of dimension {dim}, contract {embeddings.contract_id}")


def _verify(client: FaceClient, options: argparse.Namespace) -> None:
    found = client.verify(options.first, options.second)
    if options.json:
        _print_json(asdict(found))
    else:
        print(f"cosine similarity {found.score:.4f} (-1 to 1), contract {found.contract_id}")
        if found.accepted is None:
            print("the model is not calibrated: it gives a score and no decision")
        else:
            print(
                f"{'accepted' if found.accepted else 'rejected'} at {found.threshold:.4f}, chosen "
                f"for a false match rate of {found.fmr:g} on {found.calibrated_on}; "
                f"the worst group's is {found.worst_group_fmr:g}"
            )


def _info(client: FaceClient, options: argparse.Namespace) -> None:
    values = asdict(client.info())
    if options.json:
        _print_json(values)
        return
    values["model_versions"] = ", ".join(values["model_versions"])
    for key in ("contract", "calibration"):
        values[key] = json.dumps(values[key], sort_keys=True)
    for name, value in values.items():
        print(f"{name:15}{value}")


def _print_json(values: dict[str, Any]) -> None:
    print(json.dumps(values, indent=2, sort_keys=True))


def _check_output(out: Path, *, force: bool) -> None:
    if out.is_dir():
        raise _BadOutput(f"--out {out} is a folder. Name a file.")
    if not out.parent.is_dir():
        raise _BadOutput(f"--out {out}: there is no folder {out.parent}. Create it first.")
    if out.exists() and not force:
        raise _BadOutput(f"--out {out} exists. Give another name, or --force to overwrite it.")


def _write(out: Path, embeddings: Embeddings, names: Sequence[str]) -> None:
    """Write the file beside its place, then rename it: readers see all of it or nothing."""
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
        half = Path(folder) / "embeddings.npz"
        np.savez(
            half,
            vectors=embeddings.vectors,
            names=np.array(names, dtype=np.str_),
            contract_id=np.array(embeddings.contract_id),
            model_name=np.array(embeddings.model_name),
            model_version=np.array(embeddings.model_version),
        )
        half.replace(out)
