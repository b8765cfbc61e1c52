import numpy as np
import torch

from mstkd_training.artifact import Artifact
from mstkd_training.embedding import embed, face_batch, unit
from mstkd_training.stages.adaptor import load_adaptor
from mstkd_training.stages.data import read_faces
from mstkd_training.stages.student import distillation_loss, matching_batch
from mstkd_training.stages.teacher import load_backbone


def test_distillation_loss_is_39_times_the_cosine_distance_at_512() -> None:
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(16, 512, generator=generator, dtype=torch.float64)
    targets = unit(torch.randn(16, 512, generator=generator, dtype=torch.float64))
    distance = 1 - (unit(outputs) * targets).sum(1).mean()
    torch.testing.assert_close(distillation_loss(outputs, targets), 39.0625 * distance)
    assert distillation_loss(targets * 5, targets) < 1e-12


def test_flipped_faces_meet_flipped_targets() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 112, 112, 3), np.uint8)
    targets = np.arange(10, dtype=np.float32).reshape(5, 2, 1)
    indices = torch.tensor([3, 0, 3])
    flipped = torch.tensor([True, False, False])
    faces, wanted = matching_batch(images, targets, indices, flipped)
    assert wanted.flatten().tolist() == [7, 0, 6]
    np.testing.assert_array_equal(faces[0], images[3][:, ::-1])
    np.testing.assert_array_equal(faces[1], images[0])
    np.testing.assert_array_equal(faces[2], images[3])


def test_stored_targets_are_the_path_of_the_same_view(finished_run, smoke) -> None:  # type: ignore[no-untyped-def]
    data = Artifact.open(finished_run / "data")
    targets = Artifact.open(finished_run / "targets").array("targets")
    adaptor_artifact = Artifact.open(finished_run / "adaptor")
    adaptor = load_adaptor(adaptor_artifact)
    teachers = [
        load_backbone(Artifact.open(finished_run / entry.name))
        for entry in adaptor_artifact.manifest.teachers
    ]
    images = read_faces(data).images
    indices = torch.tensor([0, 7, len(images) - 1])
    for view in (0, 1):
        faces = face_batch(images, indices, torch.full((3,), view == 1))
        joined = torch.cat([embed(entry, faces, smoke.preprocessing) for entry in teachers], 1)
        with torch.inference_mode():
            wanted = unit(adaptor(joined))
        np.testing.assert_allclose(targets[indices.numpy(), view], wanted, atol=1e-5)
    assert np.abs(targets[:, 0] - targets[:, 1]).max() > 1e-3
