"""Every backbone and every adaptor becomes a file that both runtimes load, at any batch size."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from mstkd_serve.contract import Preprocessing
from mstkd_serve.engine import OnnxRuntimeEngine, OpenVinoEngine
from mstkd_training.adaptors import ADAPTORS, build_adaptor
from mstkd_training.artifact import Artifact, weights_digest, writing_artifact
from mstkd_training.backbones import BACKBONES, build_backbone
from mstkd_training.data.rendered import render_faceset
from mstkd_training.embedding import network_input
from mstkd_training.export import export
from mstkd_training.export_adaptor import export_adaptor
from mstkd_training.stages.embeddings import reference_to

QUICK = ("compact", "mobilefacenet", "iresnet18-se")


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return render_faceset(
        group_names=("Asian", "African"), identities_per_group=2, images_per_identity=2, seed=5
    ).images[:8]


def write(
    path: Path, kind: str, network: nn.Module, backbone: str, dim: int, **more: object
) -> Path:
    state = network.state_dict()
    with writing_artifact(path) as draft:
        draft.save_weights(state)
        draft.finish(
            kind=kind,
            name=path.name,
            fingerprint="",
            inputs={},
            recipe={},
            seed=0,
            preprocessing=Preprocessing(),
            backbone=backbone,
            embedding_dim=dim,
            embedding_space=f"weights-{weights_digest(state)}",
            **more,
        )
    return path


@pytest.fixture(scope="module")
def write_backbone(images: np.ndarray) -> Callable[..., Path]:
    """Write an artifact of fresh weights whose BN statistics are those of real faces."""

    def make(path: Path, name: str, dim: int, group: str = "Asian", kind: str = "teacher") -> Path:
        torch.manual_seed(sum(map(ord, path.name)))
        backbone = build_backbone(name, dim)
        for module in backbone.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.momentum = None  # the statistics become those of all batches together
        with torch.no_grad():
            backbone(network_input(torch.from_numpy(images), Preprocessing()))
        return write(path, kind, backbone, name, dim, groups=(group,))

    return make


def check_file(path: Path, images: np.ndarray, dim: int) -> None:
    """A free batch axis, opset 17, and the same answers from both runtimes at batch 1 and 8."""
    model = onnx.load(path)
    assert [entry.version for entry in model.opset_import] == [17]
    for value in (*model.graph.input, *model.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param
    wanted = OnnxRuntimeEngine(path).run(images)
    assert wanted.shape == (8, dim)
    other = OpenVinoEngine(path)
    np.testing.assert_allclose(other.run(images), wanted, atol=1e-4)
    np.testing.assert_allclose(other.run(images[:1]), wanted[:1], atol=1e-4)
    between = (wanted @ wanted.T)[~np.eye(8, dtype=bool)]
    assert between.max() < 0.999  # faces that all look alike would prove nothing


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in BACKBONES],
)
def test_every_backbone_passes_the_gate(
    write_backbone: Callable[..., Path], tmp_path: Path, images: np.ndarray, name: str
) -> None:
    dim = 512 if name.startswith("iresnet") else 128
    artifact = write_backbone(tmp_path / "student", name, dim, kind="student")
    _, agreement = export(artifact, tmp_path / "m.onnx")
    assert agreement.min_cosine > 0.99999
    check_file(tmp_path / "m.onnx", images, dim)


@pytest.mark.slow
def test_the_papers_projection_is_one_graph(
    write_backbone: Callable[..., Path], tmp_path: Path, images: np.ndarray
) -> None:
    """Four IResNet-34 and DLDPO at 512 dimensions: a file of 0.55 GB."""
    teachers = [
        write_backbone(tmp_path / f"teacher_{group.lower()}", "iresnet34", 512, group)
        for group in ("Asian", "African", "Caucasian", "Indian")
    ]
    references = tuple(reference_to(Artifact.open(teacher)) for teacher in teachers)
    torch.manual_seed(0)
    network = build_adaptor("dldpo", 2048, 512)
    adaptor = write(tmp_path / "adaptor", "adaptor", network, "dldpo", 512, teachers=references)
    export(adaptor, tmp_path / "path.onnx")
    check_file(tmp_path / "path.onnx", images, 512)


@pytest.mark.parametrize("name", ADAPTORS)
def test_teachers_and_adaptor_pass_it_as_one_graph_and_apart(
    write_backbone: Callable[..., Path], tmp_path: Path, images: np.ndarray, name: str
) -> None:
    dims = {"Asian": 24, "African": 32, "Nordic": 16}
    teachers = [
        write_backbone(tmp_path / f"teacher_{group.lower()}", "compact", dim, group)
        for group, dim in dims.items()
    ]
    references = tuple(reference_to(Artifact.open(teacher)) for teacher in teachers)
    torch.manual_seed(0)
    network = build_adaptor(name, sum(dims.values()), 40)
    adaptor = write(tmp_path / "adaptor", "adaptor", network, name, 40, teachers=references)
    fused, _ = export(adaptor, tmp_path / "path.onnx")
    check_file(tmp_path / "path.onnx", images, 40)

    alone, _ = export_adaptor(adaptor, tmp_path / "adaptor.onnx")
    assert alone == fused
    parts = {}
    for group, teacher in zip(dims, teachers, strict=True):
        export(teacher, tmp_path / "teacher.onnx")
        answers = OnnxRuntimeEngine(tmp_path / "teacher.onnx").run(images)
        parts[f"embedding_{group.lower()}"] = answers
    joined = OnnxRuntimeEngine(tmp_path / "adaptor.onnx").run_named(parts)
    whole = OnnxRuntimeEngine(tmp_path / "path.onnx").run(images)
    np.testing.assert_allclose(joined["embedding"], whole, atol=1e-5)
