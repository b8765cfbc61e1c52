import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mstkd_serve.errors import DataError
from mstkd_training.artifact import Artifact, weights_digest, writing_artifact


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    return _write(tmp_path / "thing", 1)


def _write(target: Path, seed: int) -> Path:
    with writing_artifact(target) as draft:
        draft.save_weights({"fc.weight": torch.ones(2, 3)})
        draft.save_array("rows", np.arange(6.0))
        draft.finish(kind="adaptor", name="thing", fingerprint="f", inputs={}, recipe={}, seed=seed)
    return target


def test_round_trip(artifact: Path) -> None:
    opened = Artifact.open(artifact, "adaptor")
    assert torch.equal(opened.weights()["fc.weight"], torch.ones(2, 3))
    rows = opened.array("rows")
    assert isinstance(rows, np.memmap)
    assert rows.tolist() == [0, 1, 2, 3, 4, 5]
    assert not rows.flags.writeable


def _flip_a_byte(folder: Path) -> None:
    file = folder / "weights.pt"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def _truncate(folder: Path) -> None:
    file = folder / "rows.npy"
    file.write_bytes(file.read_bytes()[:-3])


def _edit_manifest(folder: Path) -> None:
    file = folder / "manifest.json"
    values = json.loads(file.read_text())
    values["seed"] = 99
    file.write_text(json.dumps(values))


def _break_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text("{")


def _remove_file(folder: Path) -> None:
    (folder / "rows.npy").unlink()


@pytest.mark.parametrize(
    "damage", [_flip_a_byte, _truncate, _edit_manifest, _break_manifest, _remove_file]
)
def test_damage_is_refused_with_path_and_remedy(
    artifact: Path, damage: Callable[[Path], None]
) -> None:
    damage(artifact)
    with pytest.raises(DataError) as caught:
        Artifact.open(artifact)
    assert str(artifact) in str(caught.value)
    assert "run the pipeline again" in str(caught.value)


def test_missing_and_wrong_kind(artifact: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not an artifact"):
        Artifact.open(tmp_path / "nothing")
    with pytest.raises(DataError, match="needed is teacher"):
        Artifact.open(artifact, "teacher")
    with pytest.raises(DataError, match="holds no targets"):
        Artifact.open(artifact).array("targets")


class _Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("never run",)


def test_pickled_code_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fields: dict[str, Any] = {"fingerprint": "f", "inputs": {}, "recipe": {}, "seed": 0}
    with writing_artifact(tmp_path / "evil") as draft:
        torch.save({"fc": _Code()}, draft.folder / "weights.pt")
        np.save(draft.folder / "rows.npy", np.array([_Code()], dtype=object))
        draft.finish(kind="adaptor", name="evil", **fields)
    opened = Artifact.open(tmp_path / "evil")
    with pytest.raises(DataError):
        opened.weights()
    with pytest.raises(DataError):
        opened.array("rows")
    assert "never run" not in capsys.readouterr().out


def test_failed_draft_leaves_the_old_artifact(artifact: Path) -> None:
    before = Artifact.open(artifact).manifest.id
    with pytest.raises(RuntimeError, match="never finished"), writing_artifact(artifact) as draft:
        draft.save_array("rows", np.zeros(1))
    assert Artifact.open(artifact).manifest.id == before
    assert [entry.name for entry in artifact.parent.iterdir()] == ["thing"]


def test_replaces_an_artifact_but_nothing_else(artifact: Path, tmp_path: Path) -> None:
    before = Artifact.open(artifact).manifest.id
    _write(artifact, 2)
    assert Artifact.open(artifact).manifest.id != before
    (tmp_path / "notes").mkdir()
    with pytest.raises(DataError, match="not an artifact"):
        _write(tmp_path / "notes", 1)


def test_weights_digest_depends_on_names_and_values() -> None:
    one = weights_digest({"a": torch.ones(2), "b": torch.zeros(2)})
    assert one == weights_digest({"b": torch.zeros(2), "a": torch.ones(2)})
    assert one != weights_digest({"a": torch.zeros(2), "b": torch.ones(2)})
    assert one != weights_digest({"a": torch.ones(2), "c": torch.zeros(2)})
