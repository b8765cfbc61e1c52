"""Compose file, Kubernetes manifests, image: schemas, and what they promise."""

import re
import subprocess

import pytest
import yaml

EXTENSION = {"minReplicas", "maxReplicas", "scaleMetric", "scaleTarget"}
"""KServe's own fields of a predictor; the others are a pod's."""


def documents(path):
    return [found for found in yaml.safe_load_all(path.read_text()) if found]


def seconds(text):
    return int(text.removesuffix("s"))


@pytest.fixture(scope="module")
def compose(deploy):
    (found,) = documents(deploy / "compose.yaml")
    return found


@pytest.fixture(scope="module")
def kustomization(deploy):
    (found,) = documents(deploy / "kubernetes" / "kustomization.yaml")
    return found


@pytest.fixture(scope="module")
def manifests(deploy, kustomization):
    """The manifests by kind."""
    paths = [deploy / "kubernetes" / name for name in kustomization["resources"]]
    return {found["kind"]: found for path in paths for found in documents(path)}


@pytest.fixture(scope="module")
def predictor(deploy):
    (found,) = documents(deploy / "kserve" / "inferenceservice.yaml")
    return found["spec"]["predictor"]


@pytest.fixture(params=["deployment", "kserve"])
def pod(request, manifests, predictor):
    """The pod of either way to run on Kubernetes."""
    if request.param == "deployment":
        return manifests["Deployment"]["spec"]["template"]["spec"]
    return {name: value for name, value in predictor.items() if name not in EXTENSION}


def settings_of(script):
    return set(re.findall(r"\bMSTKD_[A-Z_]+", script.read_text()))


def test_compose_follows_its_schema(tool, deploy):
    check = tool("check-jsonschema", "pip install check-jsonschema")
    command = [check, "--builtin-schema", "vendor.compose-spec", str(deploy / "compose.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_compose_services_are_confined(compose):
    for name, service in compose["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert int(service["user"].split(":")[0]) > 0, name
        assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory"}, name
        assert not {"privileged", "network_mode", "devices"} & set(service), name
        assert "build" in service or re.search(r":v?\d+\.\d+\.\d+$", service["image"]), name
    assert [name for name, service in compose["services"].items() if "ports" in service] == [
        "front"
    ]
    inside = {name for name, network in compose["networks"].items() if network.get("internal")}
    reached = {name for name, s in compose["services"].items() if set(s["networks"]) - inside}
    assert reached == {"front"}


def test_compose_waits_for_requests_in_flight(compose, deploy):
    triton = compose["services"]["triton"]
    drain = int(triton["environment"]["MSTKD_EXIT_TIMEOUT"])
    assert seconds(triton["stop_grace_period"]) > drain
    assert set(triton["environment"]) <= settings_of(deploy / "entrypoint.sh")


def test_compose_mounts_what_is_here_and_secrets_are_never_committed(compose, deploy):
    for service in compose["services"].values():
        for volume in service.get("volumes", []):
            source = volume["source"] if isinstance(volume, dict) else volume.split(":")[0]
            if source.startswith("./") and "secrets" not in source:
                assert (deploy / source).exists(), source
    private = ["secrets/nginx/server.key", "secrets/grafana_password", "nginx/secrets/api-keys.map"]
    command = ["git", "check-ignore", *(str(deploy / path) for path in private)]
    done = subprocess.run(command, cwd=deploy, capture_output=True, text=True, check=False)
    assert len(done.stdout.splitlines()) == len(private)


def test_manifests_follow_their_schemas(deploy, kustomization):
    validate = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
    folder = deploy / "kubernetes"
    extra = {"kustomization.yaml", "prometheus-adapter.yaml"}
    assert {path.name for path in folder.glob("*.yaml")} - extra == set(kustomization["resources"])
    for name in kustomization["resources"]:
        for manifest in documents(folder / name):
            assert validate.validate(manifest, "1.37", strict=True) == "1.37"


def test_pods_follow_their_schema_and_are_restricted(pod):
    validate = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
    wrapped = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": pod}
    validate.validate(wrapped, "1.37", strict=True)
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    assert pod["automountServiceAccountToken"] is False
    security = pod["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] == 1000
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    kinds = {kind for volume in pod["volumes"] for kind in volume if kind != "name"}
    assert kinds <= {"emptyDir", "persistentVolumeClaim"}
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
    assert {"/tmp", "/dev/shm"} <= {mount["mountPath"] for mount in container["volumeMounts"]}
    assert {"cpu", "memory"} <= set(container["resources"]["limits"])


def test_pods_are_asked_and_stopped_as_triton_works(pod, deploy):
    (container,) = pod["containers"]
    given = {entry["name"]: entry["value"] for entry in container["env"]}
    known = settings_of(deploy / "entrypoint.sh") | {"STORAGE_URI"}
    assert set(given) <= known
    (_, pause) = container["lifecycle"]["preStop"]["exec"]["command"]
    drain = int(given["MSTKD_EXIT_TIMEOUT"])
    assert pod["terminationGracePeriodSeconds"] >= int(pause) + drain + 5
    paths = {name: container[name]["httpGet"]["path"] for name in container if "Probe" in name}
    assert paths == {
        "startupProbe": "/v2/health/ready",
        "readinessProbe": "/v2/health/ready",
        "livenessProbe": "/v2/health/live",
    }
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports in ({"grpc": 8001, "http": 8000, "metrics": 8002}, {"h2c": 8001})
    assert {container[name]["httpGet"]["port"] for name in paths} <= {"http", 8000}


def test_manifests_fit_together(manifests, deploy, tool, tmp_path):
    deployment = manifests["Deployment"]
    template = deployment["spec"]["template"]
    labels = template["metadata"]["labels"]
    (container,) = template["spec"]["containers"]
    ports = {port["name"] for port in container["ports"]}
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    assert "replicas" not in deployment["spec"], "the autoscaler's"
    service = manifests["Service"]["spec"]
    assert (service["clusterIP"], service["selector"]) == ("None", labels)
    assert {port["targetPort"] for port in service["ports"]} == {"grpc"}
    assert manifests["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    policy = manifests["NetworkPolicy"]["spec"]
    assert policy["podSelector"]["matchLabels"] == labels
    assert policy["egress"] == []
    assert {port["port"] for rule in policy["ingress"] for port in rule["ports"]} <= ports
    scaler = manifests["HorizontalPodAutoscaler"]["spec"]
    assert scaler["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    (metric,) = scaler["metrics"]
    (adapter,) = documents(deploy / "kubernetes" / "prometheus-adapter.yaml")
    (rule,) = adapter["rules"]
    assert rule["name"]["as"] == metric["pods"]["metric"]["name"]
    query = rule["metricsQuery"].replace("<<.GroupBy>>", "pod").replace("<<.LabelMatchers>>", "")
    written = {"record": "queue", "expr": query}
    rules = tmp_path / "rules.yaml"
    rules.write_text(yaml.safe_dump({"groups": [{"name": "adapter", "rules": [written]}]}))
    promtool = tool("promtool", "apt-get install prometheus")
    subprocess.run([promtool, "check", "rules", str(rules)], check=True, capture_output=True)


def test_the_image_is_small_in_rights(deploy):
    text = (deploy.parent / "Dockerfile").read_text()
    (version,) = re.findall(r"^ARG TRITON_VERSION=(\d+\.\d+)$", text, re.MULTILINE)
    assert tuple(map(int, version.split("."))) >= (25, 7), "earlier ones have known holes"
    assert re.findall(r"^FROM \S+ AS (\w+)$", text, re.MULTILINE) == ["serve", "gpu", "cpu"]
    assert re.findall(r"^USER (.*)$", text, re.MULTILINE) == ["1000:1000"]
    copied = re.findall(r"^(?:COPY|ADD) (?:--\S+ )*(\S+) ", text, re.MULTILINE)
    assert copied == ["deploy/entrypoint.sh"]
    ignored = (deploy.parent / ".dockerignore").read_text().split()
    assert ignored[-2:] == ["*", "!deploy/entrypoint.sh"]
    named = set(re.findall(r"\bMSTKD_[A-Z_]+(?==)", text))
    assert named <= settings_of(deploy / "entrypoint.sh")
