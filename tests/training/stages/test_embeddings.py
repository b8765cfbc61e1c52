import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mstkd_serve.contract import Preprocessing
from mstkd_training.artifact import Artifact, writing_artifact
from mstkd_training.backbones import build_backbone
from mstkd_training.block_store import BlockStore
from mstkd_training.embedding import embed, face_batch, inference_copy
from mstkd_training.progress import SilentReporter
from mstkd_training.recipe import EmbeddingsSection, Recipe
from mstkd_training.stages.data import read_faces
from mstkd_training.stages.embeddings import make_embeddings, read_ahead
from mstkd_training.stages.run import StageRun
from mstkd_training.stages.teacher import load_backbone

Embed = Callable[..., Artifact]


@pytest.fixture
def embedded(finished_run: Path, tmp_path: Path, smoke: Recipe) -> Embed:
    """Runs the stage on the finished run's data and teachers."""
    names = ("teacher_asian", "teacher_african")

    def run(
        section: EmbeddingsSection, teachers: tuple[Path, ...] = (), out: Path = tmp_path / "out"
    ) -> Artifact:
        data = Artifact.open(finished_run / "data")
        opened = [Artifact.open(path) for path in teachers or [finished_run / n for n in names]]
        inputs = (data, *opened)
        stage = StageRun(
            *("embeddings", "embeddings", out, section, inputs, smoke.seed, smoke.preprocessing),
            SilentReporter(),
        )
        return make_embeddings(stage, data, opened, section)

    return run


def test_every_row_is_its_face_and_its_mirror_image_by_every_teacher(
    finished_run: Path, smoke: Recipe
) -> None:
    artifact = Artifact.open(finished_run / "embeddings")
    vectors = artifact.array("embeddings")
    assert vectors.shape == (48, 2, 64)
    images = read_faces(Artifact.open(finished_run / "data")).images
    for place, teacher in enumerate(artifact.manifest.teachers):
        backbone = load_backbone(Artifact.open(finished_run / teacher.name))
        mine = vectors[:, :, 32 * place : 32 * place + 32]
        np.testing.assert_allclose(np.linalg.norm(mine, axis=-1), 1, atol=1e-5)
        for view in (0, 1):
            faces = face_batch(images, torch.arange(48), torch.full((48,), view == 1))
            wanted = embed(backbone, faces, smoke.preprocessing).numpy()
            np.testing.assert_allclose(mine[:, view], wanted, atol=2e-6)
        assert np.abs(mine[:, 0] - mine[:, 1]).max() > 1e-3


@pytest.mark.parametrize("name", ["iresnet18-se", "mobilefacenet", "compact"])
def test_the_copy_that_embeds_is_the_network_and_leaves_it_alone(name: str) -> None:
    torch.manual_seed(0)
    backbone = build_backbone(name, 64)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = 1.0  # one batch gives all the statistics
    with torch.no_grad():
        backbone(torch.randn(8, 3, 112, 112))
    backbone.eval()
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    faces = torch.randint(0, 256, (4, 112, 112, 3), dtype=torch.uint8)
    wanted = embed(backbone, faces, Preprocessing())
    for precision, least in (("fp32", 1 - 1e-6), ("bf16", 0.995)):
        copy = inference_copy(backbone, torch.device("cpu"), precision)
        found = embed(copy, faces, Preprocessing())
        assert found.dtype == torch.float32
        assert (found * wanted).sum(1).min() >= least
        kinds = [type(module) for module in copy.modules()]
        own = [type(module) for module in backbone.modules()]
        assert kinds.count(nn.BatchNorm2d) < own.count(nn.BatchNorm2d)
    for key, value in backbone.state_dict().items():
        assert torch.equal(value, before[key])


def test_float16_and_bf16_cost_little(embedded: Embed, finished_run: Path, tmp_path: Path) -> None:
    exact = Artifact.open(finished_run / "embeddings").array("embeddings")
    half = embedded(EmbeddingsSection(dtype="float16")).array("embeddings")
    assert half.dtype == np.float16
    np.testing.assert_allclose(half, exact, atol=5e-4)
    section = EmbeddingsSection(precision="bf16")
    brain = embedded(section, out=tmp_path / "bf16").array("embeddings")
    cosines = (brain * exact).reshape(48, 2, 2, 32).sum(-1)
    assert 0.995 < cosines.min() < 0.9999999


def test_teachers_may_differ_in_length(embedded: Embed, run_copy: Path) -> None:
    longer = _other_teacher(run_copy / "teacher_african", 48)
    artifact = embedded(EmbeddingsSection(), (run_copy / "teacher_asian", longer))
    assert [teacher.embedding_dim for teacher in artifact.manifest.teachers] == [32, 48]
    assert artifact.manifest.embedding_dim == 80
    vectors = artifact.array("embeddings")
    assert vectors.shape == (48, 2, 80)
    norms = [np.linalg.norm(part, axis=-1) for part in (vectors[..., :32], vectors[..., 32:])]
    np.testing.assert_allclose(norms, 1, atol=1e-5)


def test_killed_in_the_middle_it_goes_on_and_ends_with_the_same_bytes(
    embedded: Embed, run_copy: Path
) -> None:
    (run_copy / "embeddings" / "manifest.json").write_text("{}")
    command = [sys.executable, "-m", "mstkd_training.cli", "pipeline", "--recipe", "smoke"]
    slow = [*command, "--out", str(run_copy), "--set", "embeddings.batch_size=1"]
    process = subprocess.Popen(slow, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    progress = run_copy / ".embeddings.partial" / "progress.json"
    try:
        deadline = time.monotonic() + 60
        while not (progress.exists() and '"done": 0' not in progress.read_text()):
            assert process.poll() is None, "the stage ended before it could be killed"
            assert time.monotonic() < deadline, "no progress within a minute"
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert progress.exists(), "the kill came too late to test anything"
    output = subprocess.run(slow, capture_output=True, text=True, check=True).stdout
    assert "embeddings: goes on after image" in output
    unbroken = embedded(EmbeddingsSection(batch_size=1)).path / "embeddings.npy"
    assert (run_copy / "embeddings" / "embeddings.npy").read_bytes() == unbroken.read_bytes()
    assert not list(run_copy.glob(".*"))


def test_blocks_are_kept_only_for_what_they_were_made_from(tmp_path: Path) -> None:
    rows = np.arange(12, dtype=np.float32).reshape(6, 2)

    def opened(fingerprint: str = "a", shape: tuple[int, ...] = (6, 2)) -> BlockStore:
        return BlockStore.open(tmp_path / "store", fingerprint, shape, "float32")

    opened().write(rows[:4])
    store = opened()
    assert store.done == 4
    np.testing.assert_array_equal(store.array[:4], rows[:4])
    with pytest.raises(RuntimeError, match="4 of 6 rows"):
        store.take(tmp_path / "whole.npy")
    store.write(rows[4:])
    assert opened("b").done == 0
    opened("b").write(rows[:2])
    assert opened("b", (7, 2)).done == 0
    opened("b", (7, 2)).write(rows[:2])
    (tmp_path / "store" / "array.npy").unlink()
    assert opened("b", (7, 2)).done == 0
    store = opened("b")
    store.write(rows)
    store.take(tmp_path / "whole.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "whole.npy"), rows)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(("count", "start", "size"), [(7, 0, 3), (6, 3, 3), (4, 4, 2), (2, 0, 9)])
def test_reading_ahead_keeps_the_order(count: int, start: int, size: int) -> None:
    images = np.arange(count, dtype=np.uint8).reshape(count, 1, 1, 1)
    batches = [batch.ravel().tolist() for batch in read_ahead(images, start, size)]
    assert [row for batch in batches for row in batch] == list(range(start, count))
    assert all(len(batch) == size for batch in batches[:-1])


def _other_teacher(path: Path, dim: int) -> Path:
    """Replace a teacher by an untrained one of another length."""
    manifest = Artifact.open(path).manifest
    values = manifest.model_dump(exclude={"id", "files", "versions", "format"})
    state = build_backbone(str(manifest.backbone), dim).state_dict()
    with writing_artifact(path) as draft:
        draft.save_weights(state)
        draft.finish(**values | {"embedding_dim": dim})
    return path
