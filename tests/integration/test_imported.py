"""Published weights, imported, are exported and served like those that were trained here."""

import numpy as np
import pytest
import torch

from mstkd_client import FaceClient
from mstkd_serve.contract import Preprocessing
from mstkd_serve.repository import Projection, ServingOptions, Target, build_repository
from mstkd_serve.triton import Ports, TritonServer, locate
from mstkd_training.adaptors import build_adaptor
from mstkd_training.backbones import build_backbone
from mstkd_training.data.rendered import render_faceset
from mstkd_training.embedding import embed, network_input, unit
from mstkd_training.export import export
from mstkd_training.export_adaptor import export_adaptor
from mstkd_training.importing import PUBLISHED_ORDER, Source, import_adaptor, import_backbone

pytestmark = [pytest.mark.triton, pytest.mark.slow]

DIM = 16


@pytest.fixture(scope="module")
def faces():
    return render_faceset(
        group_names=("Asian", "African"), identities_per_group=2, images_per_identity=2, seed=5
    ).images[:8]


@pytest.fixture(scope="module")
def networks(faces):
    """Four teachers, an adaptor and a student, in torch, with BN statistics of real faces."""
    torch.manual_seed(0)
    made = {name: build_backbone("iresnet18", DIM) for name in (*PUBLISHED_ORDER, "student")}
    with torch.no_grad():
        for backbone in made.values():
            for module in backbone.modules():
                if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
                    module.momentum = None
            backbone(network_input(torch.from_numpy(faces), Preprocessing()))
    made["adaptor"] = build_adaptor("dldpo", 4 * DIM, DIM)
    return {name: network.eval() for name, network in made.items()}


@pytest.fixture(scope="module")
def imported(networks, tmp_path_factory):
    """The ONNX file of each, from checkpoints in the public layout."""
    folder = tmp_path_factory.mktemp("imported")

    def source(name, network):
        state = networks[name].state_dict()
        if name == "adaptor":
            state |= {"key_vector": torch.zeros(128, DIM), "value_vector": torch.zeros(128, DIM)}
        torch.save({f"module.{key}": value for key, value in state.items()}, folder / "m.pth")
        return Source(folder / "m.pth", "mst-kd", network)

    files = {}
    for group in PUBLISHED_ORDER:
        made = import_backbone(source(group, "iresnet18"), folder, role="teacher", group=group)
        files[group] = folder / f"{group}.onnx"
        export(made.artifact.path, files[group])
    adaptor = import_adaptor(source("adaptor", "dldpo"), folder).artifact.path
    made = import_backbone(source("student", "iresnet18"), folder, role="student", adaptor=adaptor)
    files |= {name: folder / f"{name}.onnx" for name in ("adaptor", "student")}
    export_adaptor(adaptor, files["adaptor"])
    export(made.artifact.path, files["student"])
    return files


def test_imported_teachers_adaptor_and_student_answer_as_in_torch(
    imported, networks, faces, tmp_path
):
    build_repository(
        {"student": imported["student"]},
        tmp_path / "models",
        target=Target.PYTHON,
        options=ServingOptions(max_batch_size=8),
        projection=Projection(
            [imported[group] for group in PUBLISHED_ORDER], imported["adaptor"], False
        ),
    )
    pixels = torch.from_numpy(faces)
    joined = [embed(networks[group], pixels, Preprocessing()) for group in PUBLISHED_ORDER]
    with torch.inference_mode():
        common = unit(networks["adaptor"](torch.cat(joined, 1))).numpy()
    student = embed(networks["student"], pixels, Preprocessing()).numpy()
    with TritonServer(locate(), tmp_path / "models", Ports(0, 0, 0)) as server:
        server.wait_ready(120)
        answers = {}
        for mode in ("student", "ensemble"):
            with FaceClient(server.url, mode=mode) as client:
                answers[mode] = client.embed(faces)
    np.testing.assert_allclose(answers["student"].vectors, student, atol=1e-4)
    np.testing.assert_allclose(answers["ensemble"].vectors, common, atol=1e-4)
    # The student was taught by this adaptor, so their embeddings may be compared.
    assert answers["student"].contract_id == answers["ensemble"].contract_id
