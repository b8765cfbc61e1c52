"""A recogniser of a third party, real faces, a real tritonserver, real gRPC."""

import csv
import json
from itertools import product
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from mstkd_client import FaceClient
from mstkd_serve.cli import app, run
from mstkd_serve.fairness.schema import Metrics

pytestmark = [pytest.mark.shared_data, pytest.mark.triton]

# As its publisher states it (ImageNet's values), on the 0 to 255 scale.
CONTRACT = {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]}


@pytest.fixture(scope="module")
def london(shared: Path) -> dict[str, np.ndarray]:
    """The aligned faces by name, uint8 RGB (112, 112, 3)."""
    folder = shared / "data" / "faces_london"
    with open(folder / "faces.csv", newline="") as file:
        names = [row["name"] for row in csv.DictReader(file)]
    faces = {}
    for name in names:
        with Image.open(folder / "aligned" / f"{name}.png") as image:
            faces[name] = np.asarray(image.convert("RGB"))
    return faces


@pytest.fixture(scope="module")
def published(shared: Path, london) -> dict[str, np.ndarray]:
    """Embeddings by the original file, one face at a time, with the published preprocessing."""
    session = onnxruntime.InferenceSession(
        shared / "weights" / "mobilefacenet_128d.onnx", providers=["CPUExecutionProvider"]
    )
    embeddings = {}
    for name, face in london.items():
        pixels = (face / 255.0 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        blob = pixels.transpose(2, 0, 1)[np.newaxis].astype(np.float32)
        row = session.run(None, {"input0": blob})[0][0]
        embeddings[name] = row / np.linalg.norm(row)
    return embeddings


@pytest.fixture(scope="module")
def repository(shared: Path, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("real")
    (folder / "contract.json").write_text(json.dumps(CONTRACT))
    arguments = [
        *("repo", "build", "--student", str(shared / "weights" / "mobilefacenet_128d.onnx")),
        *("--contract", str(folder / "contract.json"), "--target", "python"),
        *("--out", str(folder / "repository")),
    ]
    assert run(lambda: app(arguments)) == 0
    return folder / "repository"


def area_under_roc(genuine: np.ndarray, impostor: np.ndarray) -> float:
    """The share of (genuine, impostor) couples in the right order; ties count half."""
    ranks = np.searchsorted(np.sort(impostor), genuine, "left")
    ties = np.searchsorted(np.sort(impostor), genuine, "right")
    return float((ranks + ties).mean() / 2 / len(impostor))


def test_served_recogniser_verifies_real_people(repository, serve, london, published):
    names = list(london)
    with serve(repository) as running, FaceClient(running.url) as client:
        embeddings = client.embed([london[name] for name in names])
        alone = client.embed(london[names[0]])
    assert embeddings.vectors.shape == (204, 128)

    expected = np.stack([published[name] for name in names])
    cosines = np.sum(embeddings.vectors * expected, axis=1)
    assert cosines.min() >= 0.9999
    np.testing.assert_allclose(np.linalg.norm(embeddings.vectors, axis=1), 1, atol=1e-5)
    assert float(alone.vectors[0] @ expected[0]) >= 0.9999

    by_name = dict(zip(names, embeddings.vectors, strict=True))
    neutral = sorted(name for name in names if name.endswith("_neutral"))
    smiling = sorted(name for name in names if name.endswith("_smiling"))
    scores = {(a, b): float(by_name[a] @ by_name[b]) for a, b in product(neutral, smiling)}
    same = {(a, b): a.split("_")[0] == b.split("_")[0] for a, b in scores}
    genuine = np.array([scores[pair] for pair in scores if same[pair]])
    impostor = np.array([scores[pair] for pair in scores if not same[pair]])
    assert (len(genuine), len(impostor)) == (102, 10_302)
    assert area_under_roc(genuine, impostor) >= 0.999


def test_report_on_real_faces_shouts_that_they_are_few(repository, serve, shared, tmp_path):
    aligned = shared / "data" / "faces_london" / "aligned"
    with open(shared / "data" / "faces_london" / "faces.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    by_group: dict[str, list[str]] = {}
    for row in rows:
        if row["expression"] == "neutral":
            by_group.setdefault(row["ethnicity_self_reported"], []).append(row["identity"])
    lines = ["first,second,group,genuine,first_identity,second_identity"]
    for group, identities in by_group.items():
        if len(identities) < 2:
            continue
        for a, b in product(identities, identities):
            first, second = aligned / f"{a}_neutral.png", aligned / f"{b}_smiling.png"
            lines.append(f"{first},{second},{group},{int(a == b)},{a},{b}")
    (tmp_path / "pairs.csv").write_text("\n".join(lines) + "\n")
    with serve(repository) as running:
        status = run(
            lambda: app(
                [
                    *("evaluate", "pairs", str(tmp_path / "pairs.csv"), "--url", running.url),
                    *("--out", str(tmp_path / "report"), "--bootstrap", "100"),
                ]
            )
        )
    assert status == 0
    metrics = Metrics.load(tmp_path / "report" / "metrics.json")
    assert set(metrics.groups) == {name for name, people in by_group.items() if len(people) > 1}
    assert all(group.auc >= 0.999 for group in metrics.groups.values())
    serious = [caution for caution in metrics.warnings if caution.severity == "serious"]
    assert {caution.code for caution in serious} >= {"few_genuine"}
    page = (tmp_path / "report" / "report.html").read_text()
    assert page.index("Do not rely on these figures") < page.index("Mean accuracy")
    assert all(f"{name} has " in page for name in metrics.groups)
