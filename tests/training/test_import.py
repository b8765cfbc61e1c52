"""Published checkpoints, in the layouts of the public repositories, become normal artifacts."""

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mstkd_serve.errors import DataError
from mstkd_training.adaptors import build_adaptor
from mstkd_training.artifact import Artifact
from mstkd_training.backbones import build_backbone
from mstkd_training.importing import (
    PUBLISHED_ORDER,
    Imported,
    Source,
    import_adaptor,
    import_backbone,
)
from mstkd_training.stages.adaptor import load_adaptor
from mstkd_training.stages.teacher import load_backbone

DIM = 16


def backbone_state(name: str = "iresnet18", seed: int = 0, dim: int = DIM) -> dict[str, Tensor]:
    return dict(_backbone_state(name, seed, dim))


@cache
def _backbone_state(name: str, seed: int, dim: int) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return build_backbone(name, dim).state_dict()


def adaptor_state(name: str, in_dim: int = 4 * DIM, dim: int = DIM) -> dict[str, Tensor]:
    """As the public code saves it: with an attention layer that the forward pass never uses."""
    torch.manual_seed(9)
    state = build_adaptor(name, in_dim, dim).state_dict()
    if name != "sl":
        attention = nn.MultiheadAttention(dim, 1).state_dict()
        state |= {f"attention.{key}": value for key, value in attention.items()}
        state |= {key: torch.randn(128, dim) for key in ("key_vector", "value_vector")}
    return state


def save(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with four imported teachers, of 64 dimensions together."""
    folder = tmp_path_factory.mktemp("published")
    for seed, (group, dim) in enumerate(zip(PUBLISHED_ORDER, (16, 8, 16, 24), strict=True)):
        file = save(folder / f"{group}.pth", backbone_state(seed=seed, dim=dim))
        import_backbone(Source(file, "mst-kd", "iresnet18"), folder, role="teacher", group=group)
    return folder


def student(file: Path, out: Path, network: str = "iresnet18", **more: Any) -> Imported:
    format_ = more.pop("format", "arcface-torch")
    return import_backbone(Source(file, format_, network), out, role="student", **more)


def wrapped(state: dict[str, Tensor]) -> dict[str, Any]:
    """What arcface_torch saves for resuming."""
    return {
        "epoch": 19,
        "global_step": 1000,
        "state_dict_backbone": {f"module.{key}": value for key, value in state.items()},
        "state_dict_softmax_fc": {"weight": torch.zeros(3, DIM)},
        "state_optimizer": {"state": {}, "param_groups": [{"lr": 0.1, "params": [0, 1]}]},
    }


@pytest.mark.parametrize(
    "layout",
    [
        pytest.param(dict, id="plain"),
        pytest.param(lambda s: {f"module.{k}": v for k, v in s.items()}, id="DataParallel"),
        pytest.param(lambda s: {f"module._orig_mod.{k}": v for k, v in s.items()}, id="compiled"),
        pytest.param(lambda s: {"state_dict": s, "epoch": 3}, id="state_dict"),
        pytest.param(wrapped, id="arcface_torch checkpoint"),
    ],
)
def test_every_layout_gives_the_same_weights(tmp_path: Path, layout: Callable[..., Any]) -> None:
    state = backbone_state()
    file = save(tmp_path / "backbone.pth", layout(state))
    imported = student(file, tmp_path / "out")
    assert (imported.missing, imported.left_over) == ((), ())
    read = imported.artifact.weights()
    assert read.keys() == state.keys()
    assert all(torch.equal(read[key], state[key]) for key in state)
    manifest = imported.artifact.manifest
    assert (manifest.kind, manifest.backbone, manifest.embedding_dim) == (
        "student",
        "iresnet18",
        16,
    )
    assert manifest.recipe["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    state = {k: v.to(dtype) if v.is_floating_point() else v for k, v in backbone_state().items()}
    read = student(save(tmp_path / "model.pt", state), tmp_path / "out").artifact.weights()
    assert {value.dtype for value in read.values()} == {torch.float32, torch.int64}
    assert torch.equal(read["fc.weight"], state["fc.weight"].float())


def test_missing_counters_and_a_head_are_told_and_do_no_harm(tmp_path: Path) -> None:
    state = {k: v for k, v in backbone_state().items() if not k.endswith("num_batches_tracked")}
    state["kernel"] = torch.zeros(DIM, 7)
    imported = student(save(tmp_path / "m.pth", state), tmp_path / "out", format="elasticface")
    assert len(imported.missing) == 31
    assert all(key.endswith("num_batches_tracked") for key in imported.missing)
    assert imported.left_over == ("kernel",)
    load_backbone(imported.artifact)


@pytest.mark.parametrize(
    ("network", "given"),
    [("iresnet34", "iresnet50"), ("iresnet18", "iresnet18-se"), ("iresnet50", "iresnet34")],
)
def test_a_file_of_another_network_is_refused_and_named(
    tmp_path: Path, network: str, given: str
) -> None:
    """An IResNet-50 holds every name and shape of an IResNet-34."""
    file = save(tmp_path / "m.pth", backbone_state(given, dim=2))
    with pytest.raises(DataError, match=rf"looks like {given}\."):
        student(file, tmp_path / "out", network)
    assert not (tmp_path / "out").exists()


def test_damaged_entries_are_named(tmp_path: Path) -> None:
    def refused(change: Callable[[dict[str, Tensor]], Any], message: str) -> None:
        state = backbone_state()
        change(state)
        with pytest.raises(DataError, match=message):
            student(save(tmp_path / "m.pth", state), tmp_path / "out")

    refused(lambda s: s.pop("layer2.0.bn1.running_var"), r"lacks 1 .*layer2\.0\.bn1\.running_var")
    refused(lambda s: s.update({"bn1.weight": torch.ones(63)}), r"bn1\.weight has shape \[63\]")
    refused(
        lambda s: s.update({"conv1.weight": s["conv1.weight"] * torch.nan}),
        r"conv1\.weight holds values .* not fin",
    )
    refused(lambda s: s.pop("fc.weight"), r"has no matrix fc\.weight")
    refused(lambda s: s.update({"bn1.bias": s["bn1.bias"].to_sparse()}), "not a plain dense tensor")
    refused(lambda s: s.update({"bn1.bias": torch.zeros(1).expand(64)}), "not a plain dense tensor")
    huge = torch.zeros(1).expand(10**12, 25088)
    refused(
        lambda s: s.update({"fc.weight": huge}), r"fc\.bias has shape|fc\.weight is not a plain"
    )


def test_a_name_is_one_folder(tmp_path: Path) -> None:
    file = save(tmp_path / "a.pth", backbone_state())
    for name in ("../student", "a/b", ".", ".."):
        with pytest.raises(DataError, match="cannot be the name of a folder"):
            student(file, tmp_path / "out", name=name)


class Bomb:
    """Unpickling it creates a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_malicious_pickle_is_refused_and_runs_nothing(tmp_path: Path, legacy: bool) -> None:
    mark = tmp_path / "it_ran"
    file = tmp_path / "backbone.pth"
    content = {**backbone_state(dim=2), "extra": Bomb(mark)}
    torch.save(content, file, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(DataError, match=r"refused.*Nothing in it was run"):
        student(file, tmp_path / "out")
    assert not mark.exists()
    torch.load(file, weights_only=False)  # the file is what it claims to be
    assert mark.exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a checkpoint"),
        (b"PK\x03\x04 not a zip", "not a checkpoint|refused"),
        (b"\x80\x02}q\x00", "not a checkpoint|refused"),
        (bytes(range(256)) * 8, "not a checkpoint|refused"),
        ([1, 2], "holds a list"),
        ({"epoch": 3}, "no tensors"),
        ({}, "no tensors"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path: Path, content: Any, message: str) -> None:
    file = tmp_path / "m.pth"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        torch.save(content, file)
    with pytest.raises(DataError, match=message) as caught:
        student(file, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert str(file) in str(caught.value)


def test_a_missing_file_and_a_folder_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        student(tmp_path / "nowhere.pth", tmp_path / "out")
    with pytest.raises(DataError, match="directory"):
        student(tmp_path, tmp_path / "out")


@pytest.mark.parametrize("name", ["sl", "dul", "dldpo"])
def test_an_adaptor_belongs_to_its_teachers_in_the_published_order(
    tmp_path: Path, run: Path, name: str
) -> None:
    state = adaptor_state(name)
    file = save(tmp_path / "adaptor.pth", state)
    imported = import_adaptor(Source(file, "mst-kd", name), run, name=name)
    unused = {key for key in state if not key.startswith("fc")}
    assert set(imported.left_over) == unused
    manifest = imported.artifact.manifest
    assert tuple(teacher.group for teacher in manifest.teachers) == PUBLISHED_ORDER
    assert [teacher.embedding_dim for teacher in manifest.teachers] == [16, 8, 16, 24]
    for teacher in manifest.teachers:
        assert teacher.id == Artifact.open(run / teacher.name).manifest.id
    batch = torch.randn(3, 64)
    wanted = build_adaptor(name, 64, DIM).eval()
    wanted.load_state_dict({key: value for key, value in state.items() if key.startswith("fc")})
    assert torch.equal(load_adaptor(imported.artifact)(batch), wanted(batch))


def test_an_adaptor_on_other_teachers_has_another_space(tmp_path: Path, run: Path) -> None:
    source = Source(save(tmp_path / "a.pth", adaptor_state("sl", in_dim=32)), "mst-kd", "sl")
    pairs = (("asian", "caucasian"), ("caucasian", "asian"))
    spaces = [
        import_adaptor(
            source, tmp_path, teachers=[run / f"teacher_{group}" for group in pair], name=pair[0]
        ).artifact.manifest.embedding_space
        for pair in pairs
    ]
    assert spaces[0] != spaces[1]


def test_an_adaptor_refuses_teachers_in_another_order_or_number(tmp_path: Path, run: Path) -> None:
    source = Source(save(tmp_path / "a.pth", adaptor_state("sl")), "mst-kd", "sl")
    given = [run / f"teacher_{group}" for group in ("african", "asian", "caucasian", "indian")]
    with pytest.raises(DataError, match="order Asian, African, Caucasian, Indian"):
        import_adaptor(source, run, teachers=given)
    with pytest.raises(DataError, match=r"fc\.weight has shape \[16, 64\], the .* \[16, 40\]"):
        import_adaptor(source, run, teachers=given[:3])
    with pytest.raises(DataError, match=r"has no matrix fc2\.weight.* looks like the adaptor sl"):
        import_adaptor(Source(source.file, "mst-kd", "dul"), run)
    with pytest.raises(DataError, match="not an artifact"):
        import_adaptor(source, tmp_path / "empty")
    with pytest.raises(DataError, match="arcface-torch has no adaptors"):
        import_adaptor(Source(source.file, "arcface-torch", "sl"), run)


def test_a_student_shares_its_adaptors_space_and_no_other(tmp_path: Path, run: Path) -> None:
    adaptor_file = save(tmp_path / "a.pth", adaptor_state("sl"))
    adaptor = import_adaptor(Source(adaptor_file, "mst-kd", "sl"), run).artifact
    file = save(tmp_path / "student.pth", backbone_state(seed=7))
    taught = student(file, run, format="mst-kd", adaptor=adaptor.path).artifact.manifest
    assert taught.embedding_space == adaptor.manifest.embedding_space
    assert taught.groups == PUBLISHED_ORDER
    assert taught.inputs == {"adaptor": adaptor.manifest.id}
    alone = student(file, tmp_path / "other", format="mst-kd").artifact.manifest
    assert alone.embedding_space not in (None, adaptor.manifest.embedding_space)
    with pytest.raises(DataError, match="only a student of MST-KD"):
        student(file, run, adaptor=adaptor.path)
    longer = save(tmp_path / "longer.pth", backbone_state(dim=24))
    with pytest.raises(DataError, match="24-d embeddings"):
        student(longer, run, format="mst-kd", adaptor=adaptor.path, name="longer")


def test_an_import_replaces_itself_and_nothing_else(tmp_path: Path) -> None:
    file = save(tmp_path / "a.pth", backbone_state())
    first = student(file, tmp_path / "out").artifact
    assert student(file, tmp_path / "out").artifact.manifest.id == first.manifest.id
    other = save(tmp_path / "b.pth", backbone_state(seed=1))
    with pytest.raises(DataError, match="holds another artifact already"):
        student(other, tmp_path / "out")
    assert student(other, tmp_path / "out", name="second").artifact.path.name == "second"
