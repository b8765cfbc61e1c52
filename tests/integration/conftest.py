"""What tests of `mstkd-serve up` share: a repository, the command as a process."""

import re
import subprocess
import sys

import pytest

from mstkd_serve.contract import Preprocessing
from mstkd_serve.graph import build_served_graph
from mstkd_serve.repository import ServingOptions, Target, build_repository

PROGRAM = [sys.executable, "-m", "mstkd_serve.cli"]


@pytest.fixture
def student(tmp_path, recogniser):
    def make(seed):
        out = tmp_path / f"student_{seed}.onnx"
        source = recogniser(tmp_path / "source.onnx", seed=seed)
        build_served_graph(source, out, preprocessing=Preprocessing(), embedding_space="common")
        return out

    return make


@pytest.fixture
def repository(tmp_path, student):
    out = tmp_path / "models" / "repository"
    build_repository(
        {"student": student(0)},
        out,
        target=Target.PYTHON,
        options=ServingOptions(max_batch_size=8),
    )
    return out


class Up:
    """A running `mstkd-serve up`."""

    def __init__(self, repository, *options):
        command = [*PROGRAM, "up", "--model-repo", str(repository), *map(str, options)]
        command += ["--grpc-port", "0", "--http-port", "0", "--metrics-port", "0"]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.said = ""
        for line in self.process.stdout:
            self.said += line
            if "Ready" in line:
                break
        else:
            raise AssertionError(f"never ready: {self.said}")
        found = re.search(r"gRPC (\S+?)(?: \(TLS\))?, HTTP (\S+), metrics", self.said)
        self.url, self.http = found.groups()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.said += self.process.communicate(timeout=60)[0]


@pytest.fixture
def start():
    """Starts `mstkd-serve up REPOSITORY OPTIONS...`; a context manager."""
    return Up


@pytest.fixture
def command():
    """Runs a command of `mstkd-serve` to its end."""

    def run(*arguments):
        return subprocess.run(
            [*PROGRAM, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


@pytest.fixture
def refused(command):
    """Runs a command that must fail by the user's mistake; gives the one line that it says."""

    def run(*arguments):
        done = command(*arguments)
        assert done.returncode == 2, done
        assert "Traceback" not in done.stderr
        (line,) = done.stderr.strip().splitlines()
        return line

    return run
