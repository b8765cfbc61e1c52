"""Artifacts: a folder with a manifest, weights or arrays, that is whole or absent.

Every stage reads artifacts and leaves one. Reading never unpickles code, and checks each file
against its hash in the manifest.
"""

import hashlib
import pickle
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mstkd_serve.errors import DataError
from mstkd_training import __version__
from mstkd_training.manifest import MANIFEST_FILE, Kind, Manifest

WEIGHTS_FILE: Final = "weights.pt"


@dataclass(frozen=True)
class Artifact:
    """An artifact that was opened and found whole.

    Attributes:
        path: Its folder.
        manifest: What it says about itself.
    """

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: Path, kind: Kind | None = None) -> "Artifact":
        """Open an artifact and check its files against their hashes.

        Args:
            path: Its folder.
            kind: The kind that is needed; None takes any.

        Raises:
            DataError: It is missing, damaged, edited, or of another kind.
        """
        manifest = Manifest.load(path)
        if kind is not None and manifest.kind != kind:
            raise DataError(f"{path}: holds a {manifest.kind} artifact, needed is {kind}.")
        for name, expected in manifest.files.items():
            file = path / name
            if Path(name).name != name or not file.is_file():
                raise DataError(f"{file}: missing. Remove {path} and run the pipeline again.")
            if _sha256(file) != expected:
                raise DataError(
                    f"{file}: damaged or edited, its hash is not the manifest's. "
                    f"Remove {path} and run the pipeline again."
                )
        return cls(path, manifest)

    def weights(self) -> dict[str, Tensor]:
        """Return the state dictionary, on the CPU.

        Raises:
            DataError: There are no weights here, or they cannot be read.
        """
        path = self.file(WEIGHTS_FILE)
        try:
            state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise DataError(
                f"{path}: not a state dictionary of tensors ({type(error).__name__}). "
                f"Remove {self.path} and run the pipeline again."
            ) from error
        return state

    def array(self, name: str) -> NDArray[Any]:
        """Memory-map the array `<name>.npy`, read-only.

        Raises:
            DataError: There is no such array here, or it cannot be read.
        """
        path = self.file(f"{name}.npy")
        try:
            array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise DataError(
                f"{path}: not a plain array ({error}). "
                f"Remove {self.path} and run the pipeline again."
            ) from error
        return array

    def file(self, name: str) -> Path:
        """Return the path of one of its files.

        Raises:
            DataError: There is no such file here.
        """
        if name not in self.manifest.files:
            raise DataError(f"{self.path}: a {self.manifest.kind} artifact holds no {name}.")
        return self.path / name


class Draft:
    """An artifact in the making: a temporary folder beside its place."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.finished = False

    def save_weights(self, state: Mapping[str, Tensor]) -> None:
        """Write a state dictionary."""
        torch.save(
            {key: value.detach().cpu() for key, value in state.items()}, self.folder / WEIGHTS_FILE
        )

    def save_array(self, name: str, array: NDArray[Any]) -> None:
        """Write `<name>.npy`."""
        np.save(self.folder / f"{name}.npy", array, allow_pickle=False)

    def open_array(self, name: str, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        """Create `<name>.npy` as a writable memory map; it is flushed when released."""
        path = self.folder / f"{name}.npy"
        array: NDArray[Any] = np.lib.format.open_memmap(path, "w+", np.dtype(dtype), shape)
        return array

    def finish(self, **manifest: Any) -> None:
        """Hash the files and write the manifest; call it last.

        Args:
            **manifest: The fields of `Manifest` except `id`, `files` and `versions`.
        """
        names = sorted(file.name for file in self.folder.iterdir())
        files = {name: _sha256(self.folder / name) for name in names}
        versions = {
            "mstkd-training": __version__,
            "numpy": version("numpy"),
            "torch": str(torch.__version__),
        }
        Manifest(files=files, versions=versions, **manifest).save(self.folder)
        self.finished = True


@contextmanager
def writing_artifact(target: Path) -> Iterator[Draft]:
    """Yield a draft and rename it onto `target` when it is finished.

    A folder cannot be replaced in one step: between two renames there is an instant without
    `target`, but never one with half of it. Drafts that killed runs left behind are removed.

    Args:
        target: The artifact's folder. Its parent is created, an old artifact there replaced.

    Raises:
        DataError: `target` exists and is not an artifact.
    """
    if target.exists() and not (target / MANIFEST_FILE).is_file():
        raise DataError(
            f"{target}: in the way, and not an artifact. Move it or choose another --out."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{target.name}.draft."
    for leftover in target.parent.glob(f"{prefix}*"):
        shutil.rmtree(leftover)
    folder = Path(tempfile.mkdtemp(dir=target.parent, prefix=prefix))
    folder.chmod(0o755)
    try:
        draft = Draft(folder)
        yield draft
        if not draft.finished:
            raise RuntimeError(f"the draft of {target} was never finished")
        old = folder.with_name(f"{folder.name}.old")
        if target.exists():
            target.rename(old)
        folder.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def weights_digest(state: Mapping[str, Tensor]) -> str:
    """Hash names, shapes and values of weights: equal ones give equal digests (16 hex digits)."""
    digest = hashlib.sha256()
    for key in sorted(state):
        tensor = state[key].detach().cpu().contiguous()
        digest.update(f"{key}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()[:16]


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
