"""The package as others get it: its names, and a wheel that stands alone."""

import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from PIL import Image

import mstkd_client

SOURCE = Path(__file__).parents[2] / "clients" / "python"
EXPORTED = [
    "AsyncFaceClient",
    "Calibration",
    "CallRecord",
    "ClientClosed",
    "ClientOptions",
    "ContractMismatch",
    "DeadlineExceeded",
    "Embeddings",
    "FaceClient",
    "Faces",
    "Health",
    "InvalidDetector",
    "InvalidFace",
    "InvalidSettings",
    "LocalFaceClient",
    "MissingExtra",
    "ModelInfo",
    "ModelNotReady",
    "MstkdClientError",
    "OneFace",
    "Overloaded",
    "Retry",
    "ServerFault",
    "ServerUnavailable",
    "Settings",
    "Timing",
    "Unauthenticated",
    "Verification",
    "Verifications",
    "__version__",
    "similarity",
]


def test_the_exported_names_are_these():
    assert mstkd_client.__all__ == EXPORTED
    public = {name for name in vars(mstkd_client) if not name.startswith("_")}
    # Submodules, once something imported them.
    assert public - set(EXPORTED) <= {"align", "bulk", "cli"}


def test_no_file_grows_beyond_250_lines():
    lengths = {path.name: len(path.read_text().splitlines()) for path in SOURCE.rglob("*.py")}
    assert lengths
    assert {name: length for name, length in lengths.items() if length > 250} == {}


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A fresh environment's python with the client's wheel and what it depends on."""
    folder = tmp_path_factory.mktemp("client")

    def run(*command):
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
    run(*pip, "wheel", "--no-deps", "--wheel-dir", str(folder), str(SOURCE))
    (wheel,) = folder.glob("mstkd_client-*.whl")
    run(sys.executable, "-m", "venv", "--without-pip", str(folder / "venv"))
    python = folder / "venv" / "bin" / "python"
    run(*pip, "--python", str(python), "install", str(wheel))
    return python


def output(*command):
    return subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd="/",
    ).stdout


def test_the_wheel_stands_alone(installed):
    script = """
import importlib.metadata, importlib.util, json, sys
import mstkd_client
names = ["torch", "onnxruntime", "openvino", "onnx", "mstkd_serve", "mstkd_training"]
print(json.dumps({
    "file": mstkd_client.__file__,
    "version": mstkd_client.__version__,
    "exported": mstkd_client.__all__,
    "importable": [name for name in names if importlib.util.find_spec(name)],
    "imported": [name for name in names if name in sys.modules],
    "installed": sorted(d.name.lower() for d in importlib.metadata.distributions()),
}))
"""
    found = json.loads(output(installed, "-I", "-W", "error", "-c", script))
    assert Path(found["file"]).is_relative_to(installed.parents[1])
    assert found["version"] == mstkd_client.__version__ == metadata.version("mstkd-client")
    assert found["exported"] == EXPORTED
    assert found["importable"] == found["imported"] == []
    assert {"mstkd-client", "numpy", "pillow", "tritonclient", "grpcio"} <= set(found["installed"])


def test_the_wheel_brings_types_and_the_command(installed):
    script = "import mstkd_client, pathlib; print(pathlib.Path(mstkd_client.__file__).parent)"
    package = Path(output(installed, "-I", "-c", script).strip())
    assert (package / "py.typed").is_file()
    assert "embed" in output(installed.parent / "mstkd-client", "--help")


def test_the_readmes_example_runs(triton, faces, tmp_path, monkeypatch, capsys):
    (example,) = re.findall(r"```python\n(.*?)```", (SOURCE / "README.md").read_text(), re.S)
    assert example.count("localhost:8001") == 1
    monkeypatch.chdir(tmp_path)
    for name, face in zip(("anna_1", "anna_2", "ben_1", "ben_2"), faces, strict=False):
        Image.fromarray(face).save(f"{name}.png")
    exec(example.replace("localhost:8001", triton.url), {})
    score, scores = capsys.readouterr().out.split("\n", 1)
    anna, ben = scores.strip("[]\n").split()
    assert float(score) == pytest.approx(float(anna), abs=1e-4)
    assert -1 <= float(ben) <= 1
