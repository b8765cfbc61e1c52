"""The command `mstkd-client`: embed files, verify two of them, ask what the server runs.

Exit status: 0 done, 1 not ready (`health`), 2 a mistake or a server's error (one line on stderr),
130 interrupted.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mstkd_client import _commands
from mstkd_client._errors import MstkdClientError

_CONNECTION = (
    ("--url", {"help": "host:port of Triton's gRPC endpoint ($MSTKD_URL, else localhost:8001)"}),
    ("--mode", {"choices": ["student", "ensemble"], "help": "which of the method's two paths"}),
    ("--model", {"dest": "model_name", "metavar": "NAME", "help": "another model's name"}),
    ("--model-version", {"metavar": "N", "help": "a version of it"}),
    ("--timeout", {"type": float, "metavar": "SECONDS", "help": "of one request (30)"}),
    ("--tls", {"action": "store_true", "default": None, "help": "encrypt the connection"}),
    ("--tls-ca", {"metavar": "PEM", "help": "authorities to check the server against"}),
    ("--tls-cert", {"metavar": "PEM", "help": "this client's certificate"}),
    ("--tls-key", {"metavar": "PEM", "help": "its private key"}),
    ("--config", {"metavar": "TOML", "help": "file of settings ($MSTKD_CONFIG)"}),
    ("--local", {"metavar": "ONNX", "help": "run this exported file here, without a server"}),
)
"""Options of every command; token and API key come from $MSTKD_TOKEN, $MSTKD_API_KEY or the file,
because other users of a machine can read command lines."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: Its arguments; those of the process by default.

    Returns:
        The exit status: 0, 1, 2 or 130.

    Raises:
        SystemExit: argparse refused the arguments (status 2) or printed help (status 0).
    """
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except (MstkdClientError, _commands.BadArgument, OSError) as error:
        print(f"mstkd-client: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"mstkd-client: interrupted{options.after_interrupt}", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    connection = argparse.ArgumentParser(add_help=False)
    for name, how in _CONNECTION:
        connection.add_argument(name, **how)
    parser = argparse.ArgumentParser(
        prog="mstkd-client", description="Embed and compare aligned 112x112 faces."
    )
    parser.set_defaults(after_interrupt="")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    embed = commands.add_parser("embed", parents=[connection], help="write embeddings to a file")
    embed.add_argument(
        "source", nargs="+", metavar="SOURCE", help="images; for X.parquet a folder or a list"
    )
    embed.add_argument(
        "--out",
        required=True,
        type=Path,
        metavar="X.npz|X.parquet",
        help=".npz keeps all in memory; .parquet is for any number of files, and resumes",
    )
    embed.add_argument("--force", action="store_true", help="overwrite the output file")
    bulk = embed.add_argument_group("for X.parquet")
    bulk.add_argument("--detector", metavar="ONNX", help="files are photos: find faces by YuNet")
    bulk.add_argument("--engine", choices=["local", "ray"], default="local")
    bulk.add_argument("--workers", type=int, metavar="N", help="reading threads, or Ray workers")
    bulk.add_argument("--ray-address", metavar="HOST:PORT", help="an existing Ray cluster")
    bulk.add_argument("--part-size", type=int, default=1024, metavar="N", help="files of a part")
    bulk.add_argument("--restart", action="store_true", help="drop an unfinished job's work")
    embed.set_defaults(run=_commands.embed)

    verify = commands.add_parser("verify", parents=[connection], help="score two faces")
    verify.add_argument("first", metavar="A", help="aligned 112x112 RGB image")
    verify.add_argument("second", metavar="B", help="aligned 112x112 RGB image")
    verify.add_argument("--json", action="store_true", help="print JSON")
    verify.set_defaults(run=_verify)

    info = commands.add_parser("info", parents=[connection], help="tell what the server runs")
    info.add_argument("--json", action="store_true", help="print JSON")
    info.set_defaults(run=_info)

    health = commands.add_parser("health", parents=[connection], help="tell whether it is ready")
    health.add_argument("--json", action="store_true", help="print JSON")
    health.set_defaults(run=_health)
    return parser


def _verify(options: argparse.Namespace) -> int:
    with _commands.connect(options) as client:
        found = client.verify(options.first, options.second)
    if options.json:
        return _print_json(asdict(found))
    print(f"cosine similarity {found.score:.4f} (-1 to 1), contract {found.contract_id}")
    if found.accepted is None:
        print("the model is not calibrated: it gives a score and no decision")
    else:
        print(
            f"{'accepted' if found.accepted else 'rejected'} at {found.threshold:.4f}, chosen "
            f"for a false match rate of {found.fmr:g} on {found.calibrated_on}; "
            f"the worst group's is {found.worst_group_fmr:g}"
        )
    return 0


def _info(options: argparse.Namespace) -> int:
    with _commands.connect(options) as client:
        values = asdict(client.info())
    if options.json:
        return _print_json(values)
    values["model_versions"] = ", ".join(values["model_versions"])
    for key in ("contract", "calibration"):
        values[key] = json.dumps(values[key], sort_keys=True)
    for name, value in values.items():
        print(f"{name:18}{value}")
    return 0


def _health(options: argparse.Namespace) -> int:
    with _commands.connect(options) as client:
        values = asdict(client.health())
    if options.json:
        _print_json(values)
    else:
        for name, value in values.items():
            print(f"{name:18}{'yes' if value else 'no'}")
    return 0 if all(values.values()) else 1


def _print_json(values: dict[str, Any]) -> int:
    print(json.dumps(values, indent=2, sort_keys=True))
    return 0
