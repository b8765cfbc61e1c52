"""Write the golden faces of mstkd_serve: `python -m mstkd_training.data.golden --out FILE.npz`."""

import argparse
from pathlib import Path

import numpy as np

from mstkd_serve.files import atomic_path
from mstkd_training.data.faceset import FaceSet
from mstkd_training.data.rendered import render_faceset

_SEED = 112


def render_golden_faces() -> FaceSet:
    """Render two pictures of one identity of each group; the first of each are golden."""
    return render_faceset(
        identities_per_group=1, images_per_identity=2, seed=_SEED, nuisance_strength=0.5
    )


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description="Write the golden faces.")
    parser.add_argument("--out", type=Path, required=True, help="the .npz file to write")
    out: Path = parser.parse_args().out
    with atomic_path(out) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, faces=render_golden_faces().images[::2])


if __name__ == "__main__":
    main()
