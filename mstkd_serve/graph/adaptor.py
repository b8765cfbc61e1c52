"""The adaptor's ONNX file: the teachers' embeddings in, one embedding in their common space out."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import onnx
from onnx import ModelProto, TensorProto, ValueInfoProto, helper
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from mstkd_serve.calibration import Calibration
from mstkd_serve.contract import FaceContract
from mstkd_serve.errors import GraphError
from mstkd_serve.files import atomic_path
from mstkd_serve.graph.batch import BATCH_AXIS
from mstkd_serve.graph.source import OUTPUT_NAME, dimensions, load_model, metadata_of

PART_PREFIX: Final = "embedding_"
"""A teacher's embedding is `embedding_<group>`: the adaptor's input, the ensemble's output."""
PASSED_PREFIX: Final = "passed_"
"""The adaptor's model also gives its inputs back, as `passed_<group>`: a Triton ensemble cannot
use one tensor both between its steps and as an output that a caller may leave out."""
AGREEMENT_NAME: Final = "agreement"
"""Output FP32 `[N, 1]`, -1 to 1: mean over the teachers of the cosine between the embedding of
all teachers and what the adaptor makes of this teacher alone, the others set to zero."""
TEACHERS_KEY: Final = "mstkd.teachers"
"""Key of the teachers' JSON, in the order of concatenation, in the adaptor's metadata."""


class Teacher(BaseModel):
    """One teacher, as the adaptor's file names it.

    Attributes:
        name: Name of its model, such as `teacher_asian`.
        group: The group that it was trained on.
        embedding_space: The space in the contract of the teacher's served graph.
        embedding_dim: Length of its embeddings.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")
    group: str = Field(min_length=1)
    embedding_space: str
    embedding_dim: int = Field(ge=1)

    @property
    def part(self) -> str:
        """Name of the tensor that holds its embedding."""
        return PART_PREFIX + self.group.lower()

    @property
    def passed(self) -> str:
        """Name of the adaptor model's output that passes its embedding on, unchanged."""
        return PASSED_PREFIX + self.group.lower()


_TEACHERS = TypeAdapter(tuple[Teacher, ...])


@dataclass(frozen=True)
class AdaptorGraph:
    """An adaptor's file that was read and checked.

    Attributes:
        path: The file.
        model: Its graph.
        contract: The contract of what it gives: the teacher-projection path's.
        teachers: Its teachers, in the order of concatenation.
        calibration: The calibrated decision of the teacher-projection path, if it has one.
    """

    path: Path
    model: ModelProto
    contract: FaceContract
    teachers: tuple[Teacher, ...]
    calibration: Calibration | None = None

    def save(self, out: Path) -> None:
        """Write the adaptor's model: the file's graph, and its inputs passed on."""
        model = ModelProto()
        model.CopyFrom(self.model)
        for teacher in self.teachers:
            model.graph.node.append(
                helper.make_node("Identity", [teacher.part], [teacher.passed], name=teacher.passed)
            )
            shape: list[str | int | None] = [BATCH_AXIS, teacher.embedding_dim]
            model.graph.output.append(
                helper.make_tensor_value_info(teacher.passed, TensorProto.FLOAT, shape)
            )
        with atomic_path(out) as temporary:
            onnx.save(model, temporary)


def teachers_metadata(teachers: tuple[Teacher, ...]) -> dict[str, str]:
    """Return the teachers as a string pair for ONNX metadata."""
    return {TEACHERS_KEY: json.dumps([teacher.model_dump() for teacher in teachers])}


def read_adaptor(path: Path) -> AdaptorGraph:
    """Read an adaptor's ONNX file, as `mstkd-train export --flavor adaptor` writes it.

    Raises:
        GraphError: It is missing, no ONNX file, or no adaptor.
        ContractError: Its contract is malformed.
    """
    model = load_model(path, single=False)
    metadata = metadata_of(model)
    contract = FaceContract.from_metadata(metadata, source=str(path))
    try:
        teachers = _TEACHERS.validate_json(metadata.get(TEACHERS_KEY, ""))
    except ValidationError:
        teachers = ()
    if contract is None or not teachers:
        raise GraphError(
            f"{path}: not an adaptor: it names no teachers. Write one with "
            "'mstkd-train export ADAPTOR --flavor adaptor'."
        )
    calibration = Calibration.from_metadata(metadata, contract_id=contract.id, source=str(path))
    adaptor = AdaptorGraph(path, model, contract, teachers, calibration)
    wanted_in = {teacher.part: teacher.embedding_dim for teacher in teachers}
    wanted_out = {OUTPUT_NAME: contract.embedding_dim, AGREEMENT_NAME: 1}
    if not (_fits(model.graph.input, wanted_in) and _fits(model.graph.output, wanted_out)):
        raise GraphError(
            f"{path}: its inputs and outputs are not what its teachers and its contract say: "
            f"FLOAT [N, dim] of {wanted_in} and of {wanted_out}. Export it again."
        )
    return adaptor


def _fits(values: Sequence[ValueInfoProto], wanted: dict[str, int]) -> bool:
    """Tell whether tensors are FLOAT `[N, dim]` of the wanted names, in order, and lengths."""
    return [value.name for value in values] == list(wanted) and all(
        value.type.tensor_type.elem_type == TensorProto.FLOAT
        and dimensions(value) in ((None, dim), (None, None))  # exporters leave some unsaid
        for value, dim in zip(values, wanted.values(), strict=True)
    )


def match_teachers(adaptor: AdaptorGraph, given: dict[Path, FaceContract]) -> dict[Teacher, Path]:
    """Pair an adaptor's teachers with their files.

    Args:
        adaptor: The adaptor.
        given: The contract of each teacher's served graph, in the order in which they were given.

    Returns:
        The file of each teacher, in the adaptor's order.

    Raises:
        GraphError: The files are not exactly the adaptor's teachers in its order, or see faces
            otherwise than it was trained for.
    """
    wanted = [teacher.embedding_space for teacher in adaptor.teachers]
    found = [contract.embedding_space for contract in given.values()]
    names = {teacher.embedding_space: teacher.name for teacher in adaptor.teachers}
    if found != wanted:
        shown = ", ".join(
            names.get(contract.embedding_space, "a stranger") + f" ({path})"
            for path, contract in given.items()
        )
        order = ", ".join(teacher.name for teacher in adaptor.teachers)
        raise GraphError(
            f"{adaptor.path}: the adaptor needs its teachers in the order {order}; given were "
            f"{shown}. Give those files in that order."
        )
    for path, contract in given.items():
        if contract.preprocessing != adaptor.contract.preprocessing:
            raise GraphError(
                f"{path}: it sees faces otherwise than the adaptor's teachers (for instance with "
                "--flip). Export it again as the adaptor's contract says."
            )
    return dict(zip(adaptor.teachers, given, strict=True))
