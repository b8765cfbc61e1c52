"""Data stage: the training faces as one artifact.

Its files are `images.npy` uint8 `(N, 112, 112, 3)`, `identities.npy` and `groups.npy` int64
`(N,)`, `held_out.npy` bool `(N,)`, the rows of identities that are validated on and never trained
on; the groups' names are in the manifest.
"""

import numpy as np

from mstkd_training.artifact import Artifact, writing_artifact
from mstkd_training.data.faceset import FaceSet
from mstkd_training.data.rendered import render_faceset
from mstkd_training.data.split import hold_out
from mstkd_training.recipe import DataSection
from mstkd_training.stages.run import StageRun


def make_data(run: StageRun, section: DataSection) -> Artifact:
    """Render the training faces and write them.

    Args:
        run: The stage's name, seed and place.
        section: Groups and counts.
    """
    total = len(section.groups) * section.identities_per_group * section.images_per_identity
    with run.reporter.bar(run.name, total) as bar:
        faces = render_faceset(
            group_names=section.groups,
            identities_per_group=section.identities_per_group,
            images_per_identity=section.images_per_identity,
            seed=run.seed,
            nuisance_strength=section.nuisance_strength,
            progress=bar.advance,
        )
    held_out = hold_out(
        faces.identities, faces.groups, faces.group_names, section.validation.share, run.seed
    )
    with writing_artifact(run.target) as draft:
        draft.save_array("images", faces.images[:])
        draft.save_array("identities", faces.identities)
        draft.save_array("groups", faces.groups)
        draft.save_array("held_out", held_out)
        draft.finish(
            **run.manifest(),
            groups=faces.group_names,
            metrics={
                "images": len(faces.images),
                "identities": faces.identity_count,
                "identities_held_out": len(np.unique(faces.identities[held_out])),
            },
        )
    return Artifact.open(run.target, "data")


def read_faces(data: Artifact) -> FaceSet:
    """Return the faces of a data artifact; the images stay memory-mapped."""
    return FaceSet(
        images=data.array("images"),
        identities=np.asarray(data.array("identities")),
        groups=np.asarray(data.array("groups")),
        group_names=data.manifest.groups,
        held_out=np.asarray(data.array("held_out")),
    )
