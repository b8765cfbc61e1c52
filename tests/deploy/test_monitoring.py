"""Metrics, rules and dashboard: a real tritonserver, a real Prometheus."""

import json
import re
import subprocess
import time
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
import yaml
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

GPU_METRICS = {
    "nv_gpu_memory_total_bytes",
    "nv_gpu_memory_used_bytes",
    "nv_gpu_power_usage",
    "nv_gpu_utilization",
}
"""From Triton's documentation (user guide, Metrics): a server without a GPU does not show them."""
DEBIAN = "apt-get install prometheus"


@pytest.fixture(scope="module")
def rules(deploy):
    groups = yaml.safe_load((deploy / "prometheus" / "rules.yaml").read_text())["groups"]
    return {rule["alert"]: rule["expr"] for group in groups for rule in group["rules"]}


@pytest.fixture(scope="module")
def dashboard(deploy):
    return json.loads((deploy / "grafana" / "dashboards" / "mstkd.json").read_text())


@pytest.fixture(scope="module")
def queries(dashboard):
    """The dashboard's queries with its variables put in."""
    texts = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    for name, value in (("$__rate_interval", "10s"), ("$instance", ".*"), ("$model", ".*")):
        texts = [text.replace(name, value) for text in texts]
    assert not [text for text in texts if "$" in text]
    return texts


def names(texts):
    return {name for text in texts for name in re.findall(r"\bnv_\w+", text)}


def get(url, **query):
    with urllib.request.urlopen(f"{url}?{urllib.parse.urlencode(query)}", timeout=5) as response:
        return response.read().decode()


def failures(metrics):
    """Requests that failed so far, by Triton's reason, without those that clients cancelled."""
    pattern = r'nv_inference_request_failure{.*reason="(\w+)".*} (\d+)'
    found = re.findall(pattern, get(f"http://{metrics}/metrics"))
    return {reason: int(count) for reason, count in found if reason != "CANCELED"}


def test_promtool_takes_configuration_and_rules(tool, deploy):
    promtool = tool("promtool", DEBIAN)
    command = [promtool, "check", "config", str(deploy / "prometheus" / "prometheus.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "9 rules found" in done.stdout


def test_alerts_fire_when_they_should_and_not_otherwise(tool, deploy, rules, tmp_path):
    text = (Path(__file__).parent / "rules_test.yaml").read_text()
    written = tmp_path / "rules_test.yaml"
    written.write_text(text.replace("RULES", str(deploy / "prometheus" / "rules.yaml")))
    command = [tool("promtool", DEBIAN), "test", "rules", str(written)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    fired = {
        case["alertname"]
        for test in yaml.safe_load(text)["tests"]
        for case in test["alert_rule_test"]
        if case.get("exp_alerts")
    }
    assert fired == set(rules), "an alert without a test that it fires"


def test_every_alert_is_explained(rules, deploy):
    operations = (deploy.parent / "docs" / "operations.md").read_text()
    assert [name for name in rules if f"`{name}`" not in operations] == []


def test_the_dashboard_is_of_the_provisioned_source(dashboard, deploy):
    folder = deploy / "grafana" / "provisioning"
    (source,) = yaml.safe_load((folder / "datasources" / "prometheus.yaml").read_text())[
        "datasources"
    ]
    assert {panel["datasource"]["uid"] for panel in dashboard["panels"]} == {source["uid"]}
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in dashboard["panels"]]
    assert len(set(places)) == len(places)
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(places)


@pytest.mark.triton
def test_prometheus_scrapes_triton_and_answers_every_query(
    started, tool, deploy, rules, queries, run_until_listening, free_port, tmp_path, infer, faces
):
    prometheus, port = tool("prometheus", DEBIAN), free_port()
    with started() as (_, url, _, metrics):
        shown = names([get(f"http://{metrics}/metrics")])
        assert names([*queries, *rules.values()]) - GPU_METRICS <= shown
        text = (deploy / "prometheus" / "prometheus.yml").read_text()
        text = text.replace("15s", "1s").replace("triton:8002", metrics)
        (tmp_path / "prometheus.yml").write_text(text)
        (tmp_path / "rules.yaml").write_text((deploy / "prometheus" / "rules.yaml").read_text())
        command = [
            prometheus,
            f"--config.file={tmp_path / 'prometheus.yml'}",
            f"--storage.tsdb.path={tmp_path / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        api = f"http://127.0.0.1:{port}/api/v1"
        with (
            run_until_listening(command, tmp_path / "prometheus.log", port),
            closing(InferenceServerClient(url)) as client,
        ):
            end = time.monotonic() + 20
            wanted = [text for text in queries if not names([text]) & GPU_METRICS]
            assert len(wanted) > 12
            while wanted and time.monotonic() < end:
                infer(client, faces)
                time.sleep(0.3)
                wanted = [text for text in wanted if not answered(api, text)]
            assert wanted == [], "queries without an answer"
            groups = json.loads(get(f"{api}/rules"))["data"]["groups"]
            states = {rule["name"]: rule for group in groups for rule in group["rules"]}
            assert set(states) == set(rules)
            assert {rule["health"] for rule in states.values()} == {"ok"}
            healthy = [name for name in states if name not in ("CpuIsBusy", "AnswersAreSlow")]
            assert {states[name]["state"] for name in healthy} == {"inactive"}


def answered(api, query):
    result = json.loads(get(f"{api}/query", query=query))
    assert result["status"] == "success"
    return [row for row in result["data"]["result"] if row["value"][1] != "NaN"]


@pytest.fixture
def flood(infer, faces):
    """Sends requests at once; returns what each was told, "" where it was answered."""

    def send(url, timeouts):
        def attempt(timeout):
            with closing(InferenceServerClient(url)) as client:
                try:
                    infer(client, faces, timeout=timeout)
                except InferenceServerException as error:
                    return str(error.message())
            return ""

        with ThreadPoolExecutor(len(timeouts)) as pool:
            return list(pool.map(attempt, timeouts))

    return send


@pytest.mark.triton
def test_the_queue_alerts_look_where_triton_counts(started, slow_repository, flood, rules):
    assert 'reason="REJECTED"' in rules["QueueExpires"]
    assert "nv_inference_pending_request_count" in rules["QueueFills"]
    repository = slow_repository(seconds=0.6, max_queue_size=2)
    with started(repository) as (_, url, _, metrics), ThreadPoolExecutor(1) as pool:
        told = pool.submit(flood, url, [None] * 8)
        pattern = r"nv_inference_pending_request_count{.*} (\d+)"
        most = 0
        while not told.done():
            (pending,) = re.findall(pattern, get(f"http://{metrics}/metrics"))
            most = max(most, int(pending))
            time.sleep(0.03)
        assert len([text for text in told.result() if "maximum queue size" in text]) >= 4
        assert most == 2, "the only sign of a full queue"
        assert failures(metrics) == {"REJECTED": 0, "BACKEND": 0, "OTHER": 0}

        running = pool.submit(flood, url, [None])
        time.sleep(0.3)  # half of what it takes: the next one waits behind it
        assert "Request timeout expired" in flood(url, [10_000])[0]
        assert running.result() == [""]
        assert failures(metrics) == {"REJECTED": 1, "BACKEND": 0, "OTHER": 0}
