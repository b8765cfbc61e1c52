"""Published checkpoints: read without running anything in them, and fitted to a network."""

import pickle
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from mstkd_serve.errors import DataError
from mstkd_training.backbones.iresnet import BLOCKS

_WRAPPERS: Final = ("state_dict", "state_dict_backbone", "model_state_dict", "model", "backbone")
"""Keys that a checkpoint's state dictionary may lie under; arcface_torch's whole training state
has `state_dict_backbone`."""

_PREFIXES: Final = ("module.", "_orig_mod.")
"""What DataParallel and torch.compile put before every name."""


@dataclass(frozen=True)
class Fitted:
    """A published state dictionary in a network's own names.

    Attributes:
        state: Every entry of the network's state dictionary; floating-point values are float32.
        missing: Entries that the file lacked and that need no value from it (BN's counters).
        left_over: Entries of the file that the network has no place for.
    """

    state: dict[str, Tensor]
    missing: tuple[str, ...]
    left_over: tuple[str, ...]


def read_published(path: Path) -> dict[str, Tensor]:
    """Read a state dictionary, whatever it is wrapped in.

    Only tensors and plain containers are read: a pickle that asks for anything else is refused
    before that is looked up, so nothing in the file runs.

    Args:
        path: A file that `torch.save` wrote.

    Returns:
        Tensors on the CPU by name, without the prefixes of wrappers such as DataParallel.

    Raises:
        DataError: The file is missing or damaged, asks for code, or holds no state dictionary.
    """
    content = _load(path)
    for _ in range(len(_WRAPPERS)):
        inner = [key for key in _WRAPPERS if isinstance(content, Mapping) and key in content]
        if not inner:
            break
        content = content[inner[0]]
    if not isinstance(content, Mapping):
        raise DataError(
            f"{path}: holds a {type(content).__name__}, not a state dictionary. Save the network's "
            "state_dict()."
        )
    state = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if not state:
        raise DataError(f"{path}: holds no tensors under the names of a network's weights.")
    return {_bare(key): value for key, value in state.items()}


def fit_to(network: nn.Module, state: Mapping[str, Tensor], path: Path) -> Fitted:
    """Fit a published state dictionary to a network; the network itself is left as it is.

    A file may hold more than the network, such as a margin head. But nothing may be left over
    inside the network's own parts: the weights of a deeper IResNet contain all names and shapes
    of a shallower one, and would otherwise pass for it.

    Args:
        network: With the wanted architecture; it may be on torch's meta device.
        state: From `read_published`.
        path: Where it came from, for messages.

    Raises:
        DataError: A needed entry is missing, a shape differs, a value is not finite, or the file
            is of another network.
    """
    wanted = network.state_dict()
    missing = [key for key in wanted if key not in state]
    left_over = [key for key in state if key not in wanted]
    parts = {key.split(".")[0] for key in wanted}
    foreign = [key for key in left_over if key.split(".")[0] in parts]
    needed = [key for key in missing if not key.endswith("num_batches_tracked")]
    hint = looks_like(state)
    if needed:
        raise DataError(
            f"{path}: lacks {len(needed)} of the network's entries ({some(needed)}); left over "
            f"are {some(left_over)}.{hint}"
        )
    if foreign:
        raise DataError(
            f"{path}: holds {len(foreign)} entries that belong to another network "
            f"({some(foreign)}).{hint}"
        )
    for key, value in wanted.items():
        if key in state and state[key].shape != value.shape:
            raise DataError(
                f"{path}: {key} has shape {list(state[key].shape)}, the network needs "
                f"{list(value.shape)}.{hint}"
            )
    fitted = {
        key: _plain(state[key], value, f"{path}: {key}")
        if key in state
        else torch.zeros_like(value, device="cpu")
        for key, value in wanted.items()
    }
    return Fitted(fitted, tuple(missing), tuple(left_over))


def some(names: Iterable[str], at_most: int = 6) -> str:
    """Return names as a readable list, the first few of many; "none" for no names."""
    listed = list(names)
    shown = ", ".join(listed[:at_most]) or "none"
    return shown if len(listed) <= at_most else f"{shown} and {len(listed) - at_most} more"


def _load(path: Path) -> Any:
    remedy = "Download it again, and check where it comes from."
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about old pickle protocols; the user cannot help it
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}.") from error
    except pickle.UnpicklingError as error:
        asked = re.search(r"(?:GLOBAL|global|Unsupported class) ([\w.]+)", str(error))
        raise DataError(
            f"{path}: refused, it is not plain weights"
            f"{f' (it asks for {asked[1]})' if asked else ''}. Nothing in it was run. "
            "Only files of tensors are read."
        ) from error
    except Exception as error:  # a damaged pickle can raise anything
        raise DataError(
            f"{path}: not a checkpoint that torch.save wrote ({type(error).__name__}). {remedy}"
        ) from error


def _bare(key: str) -> str:
    """Return a name without what wrappers put before it."""
    while key.startswith(_PREFIXES):
        key = key.split(".", 1)[1]
    return key


def _plain(value: Tensor, like: Tensor, what: str) -> Tensor:
    """Return a dense copy in the dtype of `like`."""
    odd = value.layout != torch.strided or value.is_quantized or value.is_complex()
    # A tensor of strides 0 can claim to be huge in a file of a few bytes.
    if odd or value.untyped_storage().nbytes() < value.numel() * value.element_size():
        raise DataError(f"{what} is not a plain dense tensor ({value.dtype}, {value.layout}).")
    plain = value.detach().to(like.dtype, copy=True).contiguous()
    if not torch.isfinite(plain).all():
        raise DataError(f"{what} holds values that are not finite numbers. Download it again.")
    return plain


def looks_like(state: Mapping[str, Tensor]) -> str:
    """Return a sentence that says which network a file seems to hold, or nothing."""
    blocks = tuple(
        len({key.split(".")[1] for key in state if key.startswith(f"layer{stage}.")})
        for stage in range(1, 5)
    )
    for name, wanted in BLOCKS.items():
        if blocks == wanted:
            se = "-se" if any(".se_block." in key for key in state) else ""
            return f" The file looks like {name}{se}."
    if "fc1.weight" in state and "fc2.weight" in state:
        return " The file looks like the adaptor dul or dldpo."
    if set(state) == {"fc.weight", "fc.bias"}:
        return " The file looks like the adaptor sl."
    return ""
