"""Rules of the house that no other tool checks."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import mstkd_client
import mstkd_serve
import mstkd_training

ROOT = Path(__file__).parent.parent.parent
SOURCES = [
    path
    for folder in ("mstkd_serve", "training", "clients", "examples", "tests")
    for path in sorted((ROOT / folder).rglob("*.py"))
]


def test_the_three_distributions_share_one_version():
    assert mstkd_serve.__version__ == mstkd_training.__version__ == mstkd_client.__version__


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_file_has_one_subject(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300
    assert path.stem not in {"utils", "helpers", "common", "misc"}


@pytest.mark.parametrize(
    ("module", "command"),
    [("mstkd_serve.cli", "mstkd-serve"), ("mstkd_training.cli", "mstkd-train")],
)
def test_command_reference_is_current(module, command, tmp_path):
    written = tmp_path / "reference.md"
    typer = Path(sys.executable).parent / "typer"
    arguments = [typer, module, "utils", "docs", "--name", command, "--output", written]
    subprocess.run(arguments, check=True, capture_output=True)
    committed = ROOT / "docs" / "commands" / f"{command}.md"
    assert committed.read_text() == written.read_text(), "run `make docs`"


@pytest.mark.parametrize(
    ("folder", "wanted"),
    [
        (".", {"mstkd_serve/data/golden_faces.npz", "mstkd_serve/repository/python_model.py"}),
        ("training", {"mstkd_training/recipes/demo.yaml", "mstkd_training/py.typed"}),
    ],
)
def test_wheel_carries_what_it_needs_and_nothing_else(folder, wanted, tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir"]
    subprocess.run([*command, tmp_path, ROOT / folder], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert wanted <= names
    packages = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert packages == {next(iter(wanted)).split("/")[0]}
