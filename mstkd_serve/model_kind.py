"""What the models of a repository are."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from mstkd_serve.errors import ContractError

KIND_KEY: Final = "mstkd.kind"
"""Key of what a model is, one of `Kind`, in the `parameters` of its Triton config."""


class Kind(StrEnum):
    """What a model does."""

    EMBEDDING = "embedding"
    """Faces in, embeddings out: student, teachers, teacher-projection path."""
    ADAPTOR = "adaptor"
    """The teachers' embeddings in, one embedding out."""
    COMPARE = "compare"
    """Two batches of embeddings in, their cosines out."""
    VERIFY = "verify"
    """Two batches of faces in, their scores out."""


def kind_of(parameters: Mapping[str, str], *, source: str) -> Kind:
    """Return what a model is.

    Args:
        parameters: Those of its Triton config.
        source: Name of where they came from, for the error message.

    Raises:
        ContractError: The parameters do not say.
    """
    try:
        return Kind(parameters.get(KIND_KEY, ""))
    except ValueError:
        raise ContractError(
            f"{source}: its {KIND_KEY} is none of {', '.join(Kind)}. Build the repository again."
        ) from None
