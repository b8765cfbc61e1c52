"""Whatever cuts a job short, the same call goes on, and each file is there exactly once."""

import os
import resource
import subprocess
import sys
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mstkd_client import ServerUnavailable
from mstkd_client.bulk import JobLocked, JobMismatch, OutputError, parts, sources, worker
from mstkd_client.bulk.job import locked_folder


@pytest.fixture
def cut_short(run, model):
    """A job of which two parts of four are done."""

    def fail(faces):
        if model.faces >= 7:  # the first face is the one that asks which model it is
            raise ServerUnavailable("no Triton")

    model.before_embed = fail
    with pytest.raises(ServerUnavailable):
        run()
    model.before_embed = lambda faces: None
    model.faces = 0


@pytest.mark.usefixtures("cut_short")
def test_a_job_goes_on_after_the_parts_that_are_done(run, out, model, names, rows, expected):
    assert not out.exists()
    states = []
    run(on_progress=states.append, part_size=5)
    assert rows(out) == expected(names)
    assert model.faces == 1 + 4
    assert (states[0].files_done, states[0].resumed_from, states[0].rows) == (6, 6, 6)
    last = states[-1]
    assert (last.files_done, last.files_total, last.rows, last.unreadable) == (10, 10, 10, 0)


@pytest.mark.usefixtures("cut_short")
def test_a_resumed_job_covers_the_list_that_it_was_begun_with(
    run, out, folder, names, rows, expected
):
    (folder / "0000.png").rename(folder / "later.png")
    run()
    assert rows(out) == expected(names)


@pytest.mark.usefixtures("cut_short")
@pytest.mark.parametrize("content", [b"{", b'{"format": 99}'])
def test_a_description_that_cannot_be_read_asks_for_a_restart(
    run, out, content, names, rows, expected
):
    (description,) = out.parent.glob(".*.mstkd/job.json")
    description.write_bytes(content)
    with pytest.raises(JobMismatch, match="--restart"):
        run()
    run(restart=True)
    assert rows(out) == expected(names)


@pytest.mark.usefixtures("cut_short")
def test_a_damaged_part_is_made_anew(run, out, model, names, rows, expected):
    (part, *_) = sorted(out.parent.glob(".*.mstkd/*/*.parquet"))
    part.write_bytes(part.read_bytes()[:50])
    run()
    assert model.faces == 1 + 4 + 3
    assert rows(out) == expected(names)


@pytest.mark.usefixtures("cut_short")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": "2"}, r"model version \(begun with 1, now 2\)"),
        ({"name": "other"}, r"model name \(begun with student, now other\)"),
        ({"contract_id": "f" * 16}, r"contract id \(begun with 0123"),
        ({"detector": lambda photo: []}, r"detector \(begun with none, now .*lambda"),
        ({"source": "elsewhere"}, r"source \(begun with .*faces, now .*elsewhere\)"),
    ],
)
def test_another_model_source_or_detector_is_refused_until_restart(
    run, out, model, names, rows, change, message, faces_in, tmp_path
):
    options = {key: value for key, value in change.items() if key in ("detector", "source")}
    if "source" in options:
        faces_in(tmp_path / "elsewhere", 10)
        options["source"] = tmp_path / "elsewhere"
    for key in set(change) - set(options):
        setattr(model, key, change[key])
    with pytest.raises(JobMismatch, match=rf"{message}.*--restart"):
        run(**options)
    assert not out.exists()
    run(restart=True, **options)
    assert len(rows(out)) == (0 if "detector" in options else len(names))


def test_a_list_that_changed_is_refused(run, folder, tmp_path, model):
    listing = tmp_path / "list.txt"
    listing.write_text("faces/0000.png\nfaces/0001.png\n")

    def interrupt(faces):
        if model.faces > 1:
            raise KeyboardInterrupt

    model.before_embed = interrupt
    with pytest.raises(KeyboardInterrupt):
        run(listing, part_size=1)
    model.before_embed = lambda faces: None
    listing.write_text("faces/0000.png\nfaces/0002.png\n")
    with pytest.raises(JobMismatch, match="content of the list"):
        run(listing, part_size=1)


def test_a_model_that_is_replaced_in_mid_job_is_never_mixed_in(run, out, model, names, rows):
    def replace(faces):
        model.version = "2" if model.faces >= 4 else "1"

    model.before_embed = replace
    with pytest.raises(JobMismatch, match=r"version 2.*begun with 'student' version 1.*--restart"):
        run()
    assert not out.exists()
    model.before_embed = lambda faces: None
    model.version, model.faces = "1", 0
    run()
    assert model.faces == 1 + 7
    assert len(rows(out)) == len(names)


def test_two_jobs_never_share_an_output(run, out, model, names, rows):
    with locked_folder(out), pytest.raises(JobLocked, match=r"faces\.parquet"):
        run()
    assert model.faces == 0
    run()
    assert len(rows(out)) == len(names)


def test_a_disk_that_is_full_is_a_typed_error_and_resumable(run, out, model, names, rows, expected):
    """A limit on the size of files stands for the full disk: the listing fits, no part does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
    try:
        with pytest.raises(OutputError, match=r"part-000000.*File too large.*same command"):
            run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(out.parent.rglob("*.tmp"))
    run()
    assert rows(out) == expected(names)


def test_a_kill_at_any_step_on_disk_loses_and_doubles_nothing(folder, out):
    (folder / "bad.png").touch()
    script = Path(__file__).with_name("kill_at_every_step.py")
    done = subprocess.run(
        [sys.executable, script, folder, out], stdout=subprocess.PIPE, timeout=120, check=True
    )
    kills, refused = map(int, done.stdout.split())
    assert kills > 30
    assert refused <= 6


@pytest.mark.parametrize("copied", [True, False], ids=["pixels", "the rest"])
def test_memory_does_not_grow_with_the_number_of_files(
    run, out, faces_in, tmp_path, monkeypatch, copied
):
    monkeypatch.setattr(sources, "RUN_LENGTH", 500)
    monkeypatch.setattr(worker, "FILES_AHEAD", 64)
    monkeypatch.setattr(worker, "FACES_OF_A_CALL", 64)
    monkeypatch.setattr(parts, "ROWS_OF_A_GROUP", 512)
    (name,) = faces_in(tmp_path / "one", 1)
    face = np.zeros((112, 112, 3), np.uint8)

    def find(photo):
        pixels = face.copy() if copied else face
        return [SimpleNamespace(face=pixels, bbox=[0] * 4, score=1)]

    peaks = []
    for count in (1000, 5000):
        folder = tmp_path / f"many{count}"
        folder.mkdir()
        for index in range(count):
            os.link(tmp_path / "one" / name, folder / f"{index:0100}.png")
        tracemalloc.start()
        try:
            assert run(folder, force=True, detector=find, part_size=128).rows == count
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    if copied:  # how far the readers are ahead is a matter of luck, up to a bound
        assert peaks[1] < 4 * 64 * face.nbytes, peaks
    else:
        assert peaks[1] < 1.1 * peaks[0], peaks
