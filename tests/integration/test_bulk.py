"""Bulk jobs against a real tritonserver: killed again and again, and on a Ray cluster."""

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mstkd_client.bulk import embed_files

pytestmark = pytest.mark.triton

TOLERANCE = 1e-5


def rows(out):
    """Read an output as (path, face) to embedding, and refuse double rows."""
    table = pq.read_table(out)
    keys = list(zip(table["path"].to_pylist(), table["face"].to_pylist(), strict=True))
    assert len(set(keys)) == len(keys), "double rows"
    return dict(zip(keys, table["embedding"].to_pylist(), strict=True))


def assert_same_rows(found, expected):
    assert found.keys() == expected.keys()
    keys = sorted(expected)
    np.testing.assert_allclose(
        [found[key] for key in keys], [expected[key] for key in keys], atol=TOLERANCE
    )


@pytest.fixture
def folder(tmp_path):
    """120 aligned faces, blocks of colour, in two subfolders, and two broken files."""
    colours = np.random.default_rng(3).integers(0, 256, (120, 4, 4, 3), dtype=np.uint8)
    for index, blocks in enumerate(colours):
        path = tmp_path / "faces" / f"s{index % 2}" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(blocks.repeat(28, axis=0).repeat(28, axis=1)).save(path)
    for name in ("empty.jpg", "s1/text.png"):
        (tmp_path / "faces" / name).write_bytes(b"text"[: len(name) - 9])
    return tmp_path / "faces"


JOB = textwrap.dedent(
    """
    import sys, time
    from mstkd_client import FaceClient
    from mstkd_client.bulk import embed_files

    folder, out, url = sys.argv[1:]

    class Slow(FaceClient):
        def embed(self, faces):
            time.sleep(0.03)
            return super().embed(faces)

    def started(progress):
        print(progress.files_done, flush=True)

    try:
        result = embed_files(folder, out, connect=lambda: Slow(url), part_size=2,
                             on_progress=started)
    except KeyboardInterrupt:
        sys.exit(130)
    print("unreadable", result.unreadable)
    """
)


def test_a_job_that_is_killed_again_and_again_has_each_face_once(served, folder, tmp_path):
    uninterrupted = embed_files(folder, tmp_path / "whole.parquet", connect={"url": served.url})
    assert (uninterrupted.rows, uninterrupted.unreadable) == (120, 2)

    out = tmp_path / "killed.parquet"
    chance = random.Random(5)
    resumed_from = []
    for attempt in range(40):
        job = subprocess.Popen(
            [sys.executable, "-c", JOB, folder, out, served.url], stdout=subprocess.PIPE, text=True
        )
        with job:
            resumed_from.append(int(job.stdout.readline()))
            if attempt < 5:
                goal = resumed_from[-1] + chance.randint(1, 8)
                while (line := job.stdout.readline()).strip().isdecimal() and int(line) < goal:
                    pass
                time.sleep(chance.uniform(0, 0.05))
                job.send_signal(signal.SIGINT if attempt == 2 else signal.SIGKILL)
            rest = job.stdout.read()
        if job.returncode == 0:
            break
        assert job.returncode == (130 if attempt == 2 else -signal.SIGKILL)
    assert "unreadable 2" in rest
    assert len(resumed_from) > 3, "the job was never cut short"
    assert resumed_from == sorted(resumed_from)
    assert any(0 < files < 122 for files in resumed_from)
    assert_same_rows(rows(out), rows(tmp_path / "whole.parquet"))
    assert not (tmp_path / ".killed.parquet.mstkd").exists()


def recording_client(url, journal):
    """Make clients that note in a file, process by process, which calls begin and end."""

    def connect():  # a closure: Ray's workers cannot import this file
        import os
        import time

        from mstkd_client import FaceClient

        def note(word):
            with open(journal, "a") as file:
                file.write(f"{os.getpid()} {word}\n")

        class Recording(FaceClient):
            def embed(self, faces):
                note("begin")
                answer = super().embed(faces)
                time.sleep(0.2)
                note("end")
                return answer

        return Recording(url)

    return connect


def calls_under_way(journal):
    """Read how many calls each worker process has begun and not ended, from its journal."""
    under_way = {}
    for line in journal.read_text().splitlines():
        pid, word = line.split()
        under_way[int(pid)] = under_way.get(int(pid), 0) + (1 if word == "begin" else -1)
    under_way.pop(os.getpid(), None)
    return under_way


@pytest.mark.shared_data
@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray", "ignore::FutureWarning:ray")
def test_three_ray_workers_embed_the_photos_once_though_one_is_killed(served, shared, tmp_path):
    pytest.importorskip("cv2")
    pytest.importorskip("ray")
    pytest.importorskip("pandas", reason="Ray Data needs pandas: install ray[data]")
    photos = shared / "data/faces_london/photos"
    detector = shared / "weights/yunet_n_640_640.onnx"
    journal, out = tmp_path / "journal", tmp_path / "ray.parquet"
    victims = []

    def kill_one(progress):
        if not victims and progress.files_done >= 40:
            working = [pid for pid, calls in calls_under_way(journal).items() if calls]
            if working:
                victims.append(working[0])
                os.kill(working[0], signal.SIGKILL)

    result = embed_files(
        photos,
        out,
        connect=recording_client(served.url, journal),
        detector=detector,
        part_size=8,
        engine="ray",
        workers=3,
        on_progress=kill_one,
    )
    under_way = calls_under_way(journal)
    assert len(victims) == 1
    assert under_way.pop(victims[0]) == 1, "the worker was not killed in the middle of a call"
    assert len(under_way) >= 3, "no worker took the place of the dead one"
    assert set(under_way.values()) == {0}

    names = {path.name for path in photos.glob("*.jpg")}
    found = rows(out)
    assert {path for path, _ in found} == names
    assert (result.files, result.unreadable, result.rows) == (204, 0, len(found))
    here = tmp_path / "here.parquet"
    embed_files(photos, here, connect={"url": served.url}, detector=detector)
    assert_same_rows(found, rows(here))


@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray", "ignore::FutureWarning:ray")
def test_rays_workers_use_the_drivers_settings_and_log_no_token(
    served, folder, tmp_path, monkeypatch
):
    ray = pytest.importorskip("ray")
    out, token = tmp_path / "faces.parquet", f"secret{os.getpid()}x"
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:  # the cluster was started before, so its processes do not inherit these
        monkeypatch.setenv("MSTKD_URL", served.url)
        monkeypatch.setenv("MSTKD_TOKEN", token)
        result = embed_files(folder, out, connect={}, engine="ray", workers=1)
    finally:
        ray.shutdown()
    assert result.rows == len(rows(out)) > 0
    texts = [*Path("/tmp/ray/session_latest/logs").rglob("*"), *tmp_path.rglob("*")]
    assert not [path for path in texts if path.is_file() and token.encode() in path.read_bytes()]
