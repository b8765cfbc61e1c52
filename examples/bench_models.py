"""Write models with random weights for `make bench`: speed does not depend on the weights.

A student, and four smaller teachers with their adaptor for the ensemble mode.
"""

import argparse
import sys
from pathlib import Path

import onnx
import torch

from mstkd_serve.contract import FaceContract, Preprocessing
from mstkd_serve.graph import Teacher, build_served_graph, teachers_metadata
from mstkd_training.adaptors import build_adaptor
from mstkd_training.backbones import build_backbone
from mstkd_training.export_network import AdaptorAlone, write_adaptor_onnx, write_onnx

GROUPS = ("Asian", "African", "Caucasian", "Indian")
DIM = 512


def write_teachers(backbone: str, folder: Path) -> list[Teacher]:
    """Write a served graph for each group; return how the adaptor knows them."""
    teachers = []
    for group in GROUPS:
        name, space = f"teacher_{group.lower()}", f"bench-{group.lower()}"
        network = folder / f"{name}-network.onnx"
        write_onnx(build_backbone(backbone, DIM).eval(), network)
        build_served_graph(
            network,
            folder / f"{name}.onnx",
            preprocessing=Preprocessing(),
            embedding_space=space,
        )
        network.unlink()
        teachers.append(Teacher(name=name, group=group, embedding_space=space, embedding_dim=DIM))
    return teachers


def write_adaptor(teachers: list[Teacher], path: Path) -> None:
    """Write a linear adaptor of the teachers, with its contract and their order."""
    inputs = {teacher.part: teacher.embedding_dim for teacher in teachers}
    adaptor = AdaptorAlone(build_adaptor("sl", sum(inputs.values()), DIM), list(inputs.values()))
    write_adaptor_onnx(adaptor.eval(), path, inputs)
    contract = FaceContract(embedding_dim=DIM, embedding_space="bench-adaptor")
    model = onnx.load(path)
    onnx.helper.set_model_props(model, contract.metadata() | teachers_metadata(tuple(teachers)))
    onnx.save(model, path)


def main() -> int:
    """Write what is not there; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--student", default="iresnet34", help="the student's backbone")
    parser.add_argument("--teachers", default="iresnet18", help="the teachers' backbone")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    write_onnx(build_backbone(options.student, DIM).eval(), options.folder / "student.onnx")
    write_adaptor(write_teachers(options.teachers, options.folder), options.folder / "adaptor.onnx")
    return 0


if __name__ == "__main__":
    sys.exit(main())
