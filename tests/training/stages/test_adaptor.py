from pathlib import Path

import pytest
import torch

from mstkd_serve.errors import DataError
from mstkd_training.adaptors import build_adaptor
from mstkd_training.artifact import Artifact
from mstkd_training.export_network import load_network
from mstkd_training.progress import SilentReporter
from mstkd_training.recipe import Recipe
from mstkd_training.stages.embeddings import make_embeddings
from mstkd_training.stages.run import StageRun
from mstkd_training.stages.targets import make_targets


def test_single_layer_has_the_published_keys_and_takes_any_number_of_groups() -> None:
    adaptor = build_adaptor("sl", 2048, 512)
    shapes = {key: tuple(value.shape) for key, value in adaptor.state_dict().items()}
    assert shapes == {"fc.weight": (512, 2048), "fc.bias": (512,)}
    assert build_adaptor("sl", 3 * 32, 16)(torch.zeros(2, 96)).shape == (2, 16)


def test_the_order_of_the_teachers_is_stored(finished_run: Path) -> None:
    adaptor = Artifact.open(finished_run / "adaptor").manifest
    assert [teacher.group for teacher in adaptor.teachers] == ["Asian", "African"]
    for teacher in adaptor.teachers:
        assert teacher.id == Artifact.open(finished_run / teacher.name).manifest.id


def test_targets_refuse_embeddings_in_another_order(
    finished_run: Path, tmp_path: Path, smoke: Recipe
) -> None:
    data = Artifact.open(finished_run / "data")
    swapped = [Artifact.open(finished_run / f"teacher_{g}") for g in ("african", "asian")]
    run = StageRun(
        "embeddings",
        "embeddings",
        tmp_path,
        smoke.embeddings,
        (data, *swapped),
        smoke.seed,
        smoke.preprocessing,
        SilentReporter(),
    )
    embeddings = make_embeddings(run, data, swapped, smoke.embeddings)
    with pytest.raises(DataError, match="in this order: teacher_asian, teacher_african"):
        make_targets(run, embeddings, Artifact.open(finished_run / "adaptor"), smoke.targets)


def test_export_refuses_teachers_in_another_order_or_number(finished_run: Path) -> None:
    adaptor = Artifact.open(finished_run / "adaptor")
    asian, african = finished_run / "teacher_asian", finished_run / "teacher_african"
    for folders in ([african, asian], [asian], [asian, asian]):
        with pytest.raises(DataError, match="exactly these teachers in this order"):
            load_network(adaptor, folders)
    load_network(adaptor, [asian, african])
