"""The committed `model_repo/` is what `repo build` renders today; `make model-repo` rewrites it.

What depends on weights (contract, golden embeddings) is left out of the committed configs.
"""

import os
from pathlib import Path

import onnx
import torch

from mstkd_serve.contract import CONTRACT_ID_KEY, CONTRACT_KEY, FaceContract, Preprocessing
from mstkd_serve.golden import GOLDEN_KEY
from mstkd_serve.graph import Teacher, build_served_graph, teachers_metadata
from mstkd_serve.repository import Projection, Target, build_repository
from mstkd_serve.repository.config import read_config, render_config
from mstkd_training.adaptors import build_adaptor
from mstkd_training.export_network import AdaptorAlone, write_adaptor_onnx

COMMITTED = Path(__file__).parent.parent.parent / "model_repo"
GROUPS = ("Asian", "African", "Caucasian", "Indian")
DIM = 512
OF_WEIGHTS = (CONTRACT_KEY, CONTRACT_ID_KEY, GOLDEN_KEY)


def render(folder, recogniser):
    """Build a repository of the usual models from random weights; config texts by model."""
    teachers = []
    for seed, group in enumerate(GROUPS):
        served = folder / f"{group}.onnx"
        source = recogniser(folder / f"{group}_source.onnx", seed=seed, dim=DIM)
        contract = build_served_graph(source, served, preprocessing=Preprocessing())
        teachers.append(
            Teacher(
                name=f"teacher_{group.lower()}",
                group=group,
                embedding_space=contract.embedding_space,
                embedding_dim=DIM,
            )
        )
    adaptor = folder / "adaptor.onnx"
    network = AdaptorAlone(build_adaptor("sl", 4 * DIM, DIM), [DIM] * 4).eval()
    write_adaptor_onnx(network, adaptor, {teacher.part: DIM for teacher in teachers})
    model = onnx.load(adaptor)
    contract = FaceContract(embedding_dim=DIM, embedding_space="adaptor")
    onnx.helper.set_model_props(model, contract.metadata() | teachers_metadata(tuple(teachers)))
    onnx.save(model, adaptor)
    out = folder / "repository"
    build_repository(
        {"student": recogniser(folder / "student.onnx", seed=9, dim=DIM)},
        out,
        target=Target.ONNXRUNTIME,
        preprocessing=Preprocessing(),
        projection=Projection([folder / f"{group}.onnx" for group in GROUPS], adaptor),
        verify=True,
    )
    texts = {}
    for path in sorted(out.glob("*/config.pbtxt")):
        config = read_config(path)
        for key in OF_WEIGHTS:
            config.parameters.pop(key, None)
        texts[path.parent.name] = render_config(config)
    return texts


def test_the_committed_configs_are_todays(tmp_path, recogniser):
    torch.manual_seed(0)
    rendered = render(tmp_path, recogniser)
    if os.environ.get("MSTKD_WRITE_MODEL_REPO"):
        for name, text in rendered.items():
            (COMMITTED / name).mkdir(exist_ok=True)
            (COMMITTED / name / "config.pbtxt").write_text(text, encoding="utf-8")
    committed = {
        path.parent.name: path.read_text(encoding="utf-8")
        for path in COMMITTED.glob("*/config.pbtxt")
    }
    assert committed == rendered, "run `make model-repo`"
