"""`mstkd-serve bench` and `tune` against real servers, and what their figures mean."""

import json
import os
import signal
import threading
import time
from contextlib import closing
from xml.etree import ElementTree

import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient

from mstkd_serve.bench import (
    Effort,
    Subject,
    Target,
    bench,
    closed_loop,
    open_loop,
    write_report,
)
from mstkd_serve.bench.engines import ratio
from mstkd_serve.bench.machine import describe_machine, resident_mib
from mstkd_serve.bench.rounds import in_turn, seconds_per_call
from mstkd_serve.bench.tune import Candidate, choose
from mstkd_serve.cli import app, run
from mstkd_serve.contract import Preprocessing
from mstkd_serve.errors import ServerError

pytestmark = pytest.mark.triton


@pytest.fixture
def client(served):
    with closing(InferenceServerClient(served.url)) as client:
        yield client


def test_a_closed_loop_counts_what_the_server_counted(served, client):
    def counted():
        (model,) = client.get_inference_statistics("student").model_stats
        return model.inference_count

    before = counted()
    point = closed_loop(client, "student", batch=4, concurrency=3, seconds=0.5)
    faces = counted() - before
    assert point.failures == 0
    # It counts a little late, and has had the warm-up too.
    assert point.requests * 4 - 12 <= faces <= point.requests * 8 + 48
    assert 0.5 <= point.requests * 4 / point.faces_per_second < 3, "seconds, with the last answers"
    assert 0 < point.p50_ms <= point.p90_ms <= point.p99_ms
    assert 4 <= point.mean_batch <= 8


def test_an_open_loop_does_not_hide_a_server_that_stands_still(served, client):
    def stop_a_while():
        time.sleep(0.7)
        os.kill(served.server.pid, signal.SIGSTOP)
        time.sleep(0.6)
        os.kill(served.server.pid, signal.SIGCONT)

    pause = threading.Thread(target=stop_a_while)
    pause.start()
    point = open_loop(client, "student", batch=1, offered=50, seconds=2)
    pause.join()
    assert point.failures == 0
    assert 60 < point.requests < 140, "every arrival of two seconds counts, about 100"
    assert point.p99_ms > 400
    assert point.p90_ms > 100, "those that were due while it stood still waited, too"


def test_a_model_that_is_not_there_is_named(client):
    with pytest.raises(ServerError, match="stranger"):
        closed_loop(client, "stranger", batch=1, concurrency=1, seconds=0.1)


def test_ways_take_turns_and_ratios_are_taken_within_a_round():
    order = []
    ways = {name: lambda name=name: order.append(name) or len(order) for name in "ab"}
    assert in_turn(ways, 3) == {"a": [1, 3, 5], "b": [2, 4, 6]}
    assert order == list("ababab")
    assert ratio([1, 20, 3], [2, 20, 3]) == 1
    assert 0.01 < seconds_per_call(lambda: time.sleep(0.01), 0.05) < 0.03


def test_a_bound_says_whether_it_held():
    assert Target(claim="x", value=0.9, bound=0.9).held
    assert not Target(claim="x", value=float("nan"), bound=0.9).held
    assert not Target(claim="x", value=2.1, bound=2, at_least=False).held


def test_the_memory_of_a_process_includes_its_children(served):
    assert resident_mib(served.server.pid) > 50
    machine = describe_machine()
    assert machine.cores == len(os.sched_getaffinity(0))
    assert machine.processor in str(machine)
    assert "onnxruntime" in machine.versions


def test_bench_measures_engines_serving_and_start(tmp_path, recogniser):
    source = recogniser(tmp_path / "source.onnx")
    report = bench(
        Subject(source, Preprocessing()),
        Effort(rounds=2, seconds=0.1, starts=1, client_rounds=0),
        lambda line: None,
    )
    engines = {engine.name: engine for engine in report.engines}
    assert {"insightface", "ONNX Runtime fp32", "OpenVINO fp32"} <= set(engines)
    assert engines["insightface"].ratio[16] == 1
    assert all(engine.mean_cosine > 0.99 for engine in engines.values())
    claims = " ".join(target.claim for target in report.targets)
    for words in ("up' to ready", "mean cosine", "16 callers", "batch 16", "a lone caller"):
        assert words in claims
    assert len(report.ready_seconds) == 1
    assert {point.loop for point in report.loads} == {"closed", "open"}
    assert all(point.failures == 0 for point in report.loads)
    written, picture = write_report(report, tmp_path / "out")
    assert json.loads(written.read_text())["machine"]["cores"] == report.machine.cores
    assert ElementTree.parse(picture).getroot().tag.endswith("svg")


def test_bench_measures_a_running_server(served, tmp_path, capsys):
    words = ["bench", "--url", served.url, "--seconds", "0.1", "--out", str(tmp_path)]
    assert run(lambda: app(words)) == 0
    assert "student at" in capsys.readouterr().out
    loads = json.loads((tmp_path / "bench.json").read_text())["loads"]
    assert {load["batch"] for load in loads} == {1, 8}, "this server takes batches of 8"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "--student"),
        (["--url", "127.0.0.1:1", "--student", "x.onnx"], "--student"),
        (["--url", "127.0.0.1:1"], "does not answer"),
        (["--student", "missing.onnx"], "missing.onnx"),
        (["--student", "x.onnx", "--adaptor", "y.onnx"], "--teacher and --adaptor"),
    ],
)
def test_mistakes_are_told_in_a_line(words, complaint, capsys):
    assert run(lambda: app(["bench", *words])) == 2
    told = capsys.readouterr().err
    assert complaint in told
    assert "Traceback" not in told


def candidate(instances, speed, p99):
    return Candidate(
        instances=instances,
        intra_op_threads=0,
        max_queue_delay_us=0,
        max_batch_size=8,
        bounded=True,
        faces_per_second=speed,
        p50_ms=p99 / 2,
        p99_ms=p99,
        mean_batch=1,
    )


def test_the_choice_is_the_simplest_among_the_fastest_that_keep_the_latency():
    slow, quick, quicker, late = (
        candidate(1, 50, 10),
        candidate(2, 98, 20),
        candidate(3, 100, 30),
        candidate(4, 200, 300),
    )
    assert choose([slow, quick, quicker, late], 100) == (quick, True)
    assert choose([slow, quick, quicker, late], 1000) == (late, True)
    assert choose([quick, late], 5) == (quick, False)


def test_tune_prints_options_that_build_a_repository(tmp_path, recogniser, capsys):
    source = recogniser(tmp_path / "source.onnx")
    words = ["tune", "--student", str(source), "--contract", "arcface", "--rounds", "1"]
    assert run(lambda: app([*words, "--seconds", "0.1", "--out", str(tmp_path / "t.json")])) == 0
    said = capsys.readouterr().out
    (line,) = (line for line in said.splitlines() if line.startswith("repo build "))
    build = [*line.split(), "--student", str(source), "--contract", "arcface"]
    assert run(lambda: app([*build, "--out", str(tmp_path / "repository")])) == 0
    found = json.loads((tmp_path / "t.json").read_text())
    assert [each["bounded"] for each in found["candidates"][-2:]] == [True, False]
    speeds = [each["faces_per_second"] for each in found["candidates"][-2:]]
    assert found["best"]["faces_per_second"] >= 0.97 * np.max(speeds)
