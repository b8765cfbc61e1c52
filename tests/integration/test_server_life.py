"""What happens to a running server: reloading, versions side by side, breaking, draining."""

import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from mstkd_client import FaceClient, LocalFaceClient, MstkdClientError, Retry
from mstkd_serve.repository import add_version, promote
from mstkd_serve.triton import Ports, TritonServer, locate

pytestmark = pytest.mark.triton

NEVER = Retry(attempts=1)


def test_reloading_under_load_loses_no_request(
    repository, student, tmp_path, faces, start, command
):
    key = tmp_path / "admin.key"
    embeddings = {}
    for version, seed in (("1", 0), ("2", 1)):
        with LocalFaceClient(student(seed)) as local:
            embeddings[version] = local.embed(faces).vectors
    answers, failures, stop, reloaded = [], [], threading.Event(), {}

    def work(client):
        while not stop.is_set():
            started = time.monotonic()
            try:
                answers.append((started, client.embed(faces)))
            except Exception as error:
                failures.append(error)

    with start(repository, "--model-control", "explicit", "--admin-key-file", key) as up:
        mine = ["--url", up.url, "--admin-key-file", key]
        with FaceClient(up.url, retry=NEVER) as client:
            threads = [threading.Thread(target=work, args=(client,)) for _ in range(4)]
            for thread in threads:
                thread.start()
            try:
                time.sleep(0.5)
                assert add_version(repository, "student", student(1)) == 2
                for action, version in (("promote", ["2"]), ("rollback", [])):
                    done = command("repo", action, repository, "student", *version)
                    assert done.returncode == 0, done
                    done = command("models", "reload", "student", *mine)
                    assert done.returncode == 0, done
                    served = "2" if action == "promote" else "1"
                    assert f"serves version {served}." in done.stdout
                    reloaded[served] = time.monotonic()
                    time.sleep(0.5)
            finally:
                stop.set()
                for thread in threads:
                    thread.join(30)
    assert failures == []
    assert {answer.model_version for _, answer in answers} == {"1", "2"}
    late = [answer.model_version for started, answer in answers if started > reloaded["1"]]
    assert set(late) == {"1"}, "who asked after the reload is answered by what was loaded"
    for _, answer in answers:
        np.testing.assert_allclose(answer.vectors, embeddings[answer.model_version], atol=1e-5)


def test_two_versions_answer_side_by_side(repository, student, faces, start, command):
    add_version(repository, "student", student(1))
    promote(repository, "student", 2, beside=True)
    with start(repository) as up:
        for asked, answering in (("1", "1"), ("2", "2"), ("", "2")):
            with FaceClient(up.url, model_version=asked) as client:
                assert client.embed(faces).model_version == answering
        done = command("doctor", "--url", up.url, "--model", "student")
        assert done.returncode == 0, done
        assert done.stdout.count("cosine") == 2


def processes(word):
    """Return the processes whose command line holds a word, by process id."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = path.read_bytes()
        except OSError:
            continue
        if word.encode() in text:
            found[int(path.parent.name)] = text.split(b"\0")[0].decode()
    return found


def pid_of(program, repository):
    (pid,) = [
        pid for pid, name in processes(str(repository)).items() if name.endswith(f"/{program}")
    ]
    return pid


def test_a_model_that_dies_is_loaded_anew(repository, faces, tmp_path, start):
    key = tmp_path / "admin.key"
    options = ["--model-control", "explicit", "--admin-key-file", key, "--drain-seconds", 3]
    up = start(repository, *options)
    with up, FaceClient(up.url, retry=Retry(attempts=20)) as client:
        expected = client.embed(faces).vectors
        os.kill(pid_of("triton_python_backend_stub", repository), signal.SIGKILL)
        np.testing.assert_array_equal(client.embed(faces).vectors, expected)
        assert client.health().model_ready
    assert "The process of model 'student' died; it was loaded anew." in up.said


def test_a_dead_model_of_a_fixed_server_ends_it_with_the_reason(repository, start):
    up = start(repository)
    os.kill(pid_of("triton_python_backend_stub", repository), signal.SIGKILL)
    with up:
        up.process.wait(60)
    assert up.process.returncode == 2
    assert "the process of model 'student' died" in up.said
    assert "--model-control explicit" in up.said
    assert not processes(str(repository))


def test_nothing_stays_in_shared_memory_after_a_server_was_killed(repository):
    with TritonServer(locate(), repository, Ports(0, 0, 0)) as server:
        server.wait_ready(60)
        left = f"{server._memory_prefix}*"
        assert list(Path("/dev/shm").glob(left))
        os.kill(server.pid, signal.SIGKILL)
    assert not list(Path("/dev/shm").glob(left))


def test_a_signal_lets_requests_in_flight_finish(repository, faces, start):
    model = repository / "student" / "1" / "model.py"
    model.write_text(
        model.read_text().replace("answers = self._run(joined)", "answers = _slowly(self, joined)")
        + "\n\ndef _slowly(model, joined):\n    import time\n\n    time.sleep(2)\n"
        "    return model._run(joined)\n"
    )
    done = []
    up = start(repository)
    with up, FaceClient(up.url, retry=NEVER, timeout=20) as client:
        client.info()
        thread = threading.Thread(target=lambda: done.append(client.embed(faces)))
        thread.start()
        time.sleep(0.7)
        up.process.terminate()
        time.sleep(0.3)
        with FaceClient(up.url, retry=NEVER, timeout=5) as late, pytest.raises(MstkdClientError):
            late.embed(faces)
        thread.join(20)
    assert len(done) == 1
    assert len(done[0]) == 8
    assert up.process.returncode == 0
    assert "Stopped." in up.said
