"""What the engine `ray` does without Ray; tests/integration/test_bulk.py runs it."""

import os
import pickle
import socket
import sys

import pytest

from mstkd_client import MissingExtra, ServerUnavailable
from mstkd_client.bulk import BulkError, JobMismatch, OutputError, ray_engine
from mstkd_client.bulk.job import Job, Model, locked_folder
from mstkd_client.bulk.ray_engine import PartActor
from mstkd_client.bulk.sources import open_source


@pytest.mark.parametrize("module", ["ray", "ray.data"])
def test_a_missing_ray_names_the_extra(run, out, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=r"pip install 'mstkd-client\[ray\]'"):
        run(engine="ray")
    assert not out.exists()


@pytest.fixture
def job(out, folder, model):
    described = Model(model.contract_id, model.name, model.version, 4, {})
    with locked_folder(out) as work:
        yield Job.create(work, open_source(folder), described, detector="", part_size=3)


def test_an_actor_does_a_part_once_however_often_it_is_asked(job, model):
    actor = PartActor(str(job.folder), model.connect, None)
    for _ in range(2):
        answer = actor({"part": [1]})
        assert {name: value for name, (value,) in answer.items()} == {
            "part": 1,
            "files": 3,
            "rows": 3,
            "unreadable": 0,
            "error": "",
            "text": "",
        }
    assert model.faces == 3


def test_an_actor_answers_with_the_client_error_and_the_driver_raises_it(job, model):
    def fail(faces):
        raise ServerUnavailable("no Triton answers")

    model.before_embed = fail
    answer = PartActor(str(job.folder), model.connect, None)({"part": [0]})
    assert not job.part_path(0).exists()
    error = ray_engine._revive(answer["error"][0], answer["text"][0])
    assert isinstance(error, ServerUnavailable)
    assert str(error) == "no Triton answers"
    for kind in (JobMismatch, OutputError):
        assert type(ray_engine._revive(kind.__name__, "x")) is kind
    assert type(ray_engine._revive("FromALaterRelease", "x")) is BulkError


def test_a_machine_that_does_not_share_the_folder_says_so(tmp_path, model):
    answer = PartActor(str(tmp_path / "elsewhere"), model.connect, None)({"part": [0]})
    assert answer["error"] == ["BulkError"]
    assert "does not see the work folder" in answer["text"][0]


def test_a_defect_in_a_worker_is_a_bulk_error_with_its_words(job, model):
    def fail(faces):
        raise ZeroDivisionError("a bug")

    model.before_embed = fail
    answer = PartActor(str(job.folder), model.connect, None)({"part": [0]})
    assert answer["error"] == ["BulkError"]
    assert "ZeroDivisionError: a bug" in answer["text"][0]


class NoRay:
    """Ray as far as its start: it notes how it is started, and refuses."""

    class exceptions:  # noqa: N801
        RayError = ArithmeticError

    def __init__(self):
        self.started = []

    def is_initialized(self):
        return False

    def init(self, **options):
        self.started.append({**options, "telemetry": os.environ["RAY_USAGE_STATS_ENABLED"]})
        raise RuntimeError("no room\nmore words")


def test_a_local_cluster_has_no_telemetry_and_no_dashboard(run, monkeypatch):
    ray = NoRay()
    monkeypatch.setattr(ray_engine, "_import_ray", lambda: ray)
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED", raising=False)
    with pytest.raises(BulkError, match=r"no Ray cluster on this machine: no room\. Give"):
        run(engine="ray", workers=3)
    (options,) = ray.started
    assert (options["telemetry"], options["include_dashboard"]) == ("0", False)
    assert (options["address"], options["num_cpus"]) == ("local", 3)
    assert "RAY_USAGE_STATS_ENABLED" not in os.environ


def test_a_cluster_that_does_not_answer_is_named_at_once(run, monkeypatch):
    monkeypatch.setattr(ray_engine, "_import_ray", NoRay)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = "127.0.0.1:{1}".format(*probe.getsockname())
        with pytest.raises(BulkError, match=rf"no Ray cluster at {address}: .*refused.*ray start"):
            run(engine="ray", ray_address=address)


def test_the_drivers_credentials_reach_a_worker_and_no_text(monkeypatch, tmp_path):
    config = tmp_path / "client.toml"
    config.write_text('timeout = 7.0\ntoken = "from-the-file"\n')
    monkeypatch.setenv("MSTKD_CONFIG", str(config))
    monkeypatch.setenv("MSTKD_URL", "localhost:1234")
    monkeypatch.setenv("MSTKD_TOKEN", "s3cret")
    sent = pickle.dumps(ray_engine._portable({"model_name": "student"}))
    for name in ("CONFIG", "URL", "TOKEN"):
        monkeypatch.delenv(f"MSTKD_{name}")
    config.unlink()
    connection = pickle.loads(sent)
    with connection() as client:
        settings = client._settings
    assert (settings.url, settings.token, settings.timeout, settings.model_name) == (
        "localhost:1234",
        "s3cret",
        7.0,
        "student",
    )
    assert repr(connection) == "<connection to localhost:1234>"
