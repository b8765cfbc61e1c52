import csv
import json
import os
import stat
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mstkd_client import ContractMismatch, InvalidSettings
from mstkd_client.bulk import BulkError, OutputError, SourceError, worker


@pytest.fixture(autouse=True)
def _few_files_ahead(monkeypatch):
    monkeypatch.setattr(worker, "FILES_AHEAD", 2)


def report(out):
    with out.with_suffix(".unreadable.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["path", "reason"]
    return dict(rows)


def test_every_file_is_a_row_and_the_model_is_in_the_metadata(run, out, names, rows, expected):
    result = run()
    assert (result.rows, result.files, result.unreadable) == (10, 10, 0)
    assert (result.out, result.unreadable_report) == (out, None)
    assert rows(out) == expected(names)
    file = pq.ParquetFile(out)
    fields = {field.name: field.type for field in file.schema_arrow}
    assert fields == {
        "path": pa.string(),
        "face": pa.int32(),
        "embedding": pa.list_(pa.field("element", pa.float32()), 4),
    }
    metadata = {key.decode(): value.decode() for key, value in file.schema_arrow.metadata.items()}
    assert json.loads(metadata.pop("mstkd.contract"))["alignment"] == "arcface-112"
    assert metadata == {
        "mstkd.contract_id": "0123456789abcdef",
        "mstkd.model_name": "student",
        "mstkd.model_version": "1",
    }


def test_only_the_output_stays_and_only_for_its_owner(run, out, folder, tmp_path):
    (folder / "bad.png").touch()
    run()
    report_file = out.with_suffix(".unreadable.csv")
    assert {*tmp_path.iterdir()} == {folder, out, report_file}
    assert [stat.S_IMODE(path.stat().st_mode) for path in (out, report_file)] == [0o600] * 2


def test_small_parts_are_joined_into_large_row_groups(run, out):
    run(part_size=1)
    assert pq.ParquetFile(out).num_row_groups == 1


def test_unreadable_files_are_reported_and_never_stop_the_job(
    run, out, folder, names, rows, expected, tmp_path
):
    Image.new("RGB", (112, 112), "red").save(tmp_path / "whole.jpg")
    broken = {
        "a truncated.jpg": (tmp_path / "whole.jpg").read_bytes()[:500],
        "b text.jpg": b"not an image",
        "c empty.png": b"",
    }
    for name, content in broken.items():
        (folder / name).write_bytes(content)
    Image.new("RGB", (100, 112)).save(folder / "d size.png")
    (folder / "e gone.png").symlink_to("nowhere.png")
    (folder / "f folder.png").mkdir()
    os.mkfifo(folder / "g pipe.png")
    (folder / "new\nline.png").write_bytes(b"x")
    latin = os.fsdecode(b"latin\xff.png")
    Image.new("RGB", (112, 112)).save(tmp_path / "whole.png")
    os.rename(tmp_path / "whole.png", folder / latin)

    result = run()
    assert rows(out) == expected(names)
    reasons = report(out)
    assert result.unreadable == len(reasons) == 8
    assert "100x112" in reasons["d size.png"]
    assert "does not exist" in reasons["e gone.png"]
    assert "does not exist" in reasons["g pipe.png"]
    assert "not UTF-8" in reasons["latin\\udcff.png"]
    assert {"a truncated.jpg", "b text.jpg", "c empty.png", "new\nline.png"} < set(reasons)
    assert not [reason for reason in reasons.values() if str(folder) in reason]


def test_a_file_that_vanishes_after_the_listing_is_reported(run, out, folder, model):
    def remove(faces):
        if model.faces:  # the first face asks which model it is; the listing comes after it
            (folder / "0009.png").unlink(missing_ok=True)

    model.before_embed = remove
    assert run(part_size=1).unreadable == 1
    assert "does not exist" in report(out)["0009.png"]


def test_a_source_that_goes_away_stops_the_job_instead_of_losing_all_files(
    run, out, folder, names, model, rows, expected
):
    aside = folder.with_name("aside")
    model.before_embed = lambda faces: model.faces == 4 and folder.rename(aside)
    with pytest.raises(SourceError, match=r"no longer there.*again"):
        run(part_size=1)
    aside.rename(folder)
    model.before_embed = lambda faces: None
    assert run().unreadable == 0
    assert rows(out) == expected(names)


def test_a_list_and_names_of_any_kind(run, out, folder, tmp_path, rows):
    odd = ["new\nline.png", "ünï 顔.png"]
    for name in odd:
        (folder / "0000.png").rename(folder / name)
        Image.new("RGB", (112, 112)).save(folder / "0000.png")
    run()
    assert {(name, 0) for name in odd} < set(rows(out))
    (tmp_path / "list.txt").write_text(f"faces/0001.png\nfaces/ünï 顔.png\n{folder}/0002.png\n")
    run(tmp_path / "list.txt", tmp_path / "list.parquet")
    paths = [path for path, _ in rows(tmp_path / "list.parquet")]
    assert paths == sorted(["faces/0001.png", "faces/ünï 顔.png", f"{folder}/0002.png"])


def find(photo):
    """A detector that finds as many faces as the name's last digit says, none in 0003."""
    if "0004" in photo.name:
        raise RuntimeError("hostile")
    pixels = np.asarray(Image.open(photo))
    count = 0 if "0003" in photo.name else int(photo.stem[-1]) % 3 + 1
    return [
        SimpleNamespace(face=pixels, bbox=[index, 1, 2, 3], score=0.5 + index / 8)
        for index in range(count)
    ]


def test_a_detector_gives_many_faces_a_photo(run, out, names):
    result = run(detector=find)
    reasons = {"0003.png": "no face found", "0004.png": "the detector failed: RuntimeError"}
    assert report(out) == reasons
    table = pq.read_table(out)
    keys = list(zip(table["path"].to_pylist(), table["face"].to_pylist(), strict=True))
    assert keys == [
        (name, face)
        for name in names
        if name not in reasons
        for face in range(int(name[3]) % 3 + 1)
    ]
    assert result.rows == len(keys)
    assert table["score"].to_pylist() == [0.5 + face / 8 for _, face in keys]
    assert table["bbox"].to_pylist() == [[face, 1, 2, 3] for _, face in keys]
    assert [row[0] for row in table["embedding"].to_pylist()] == [int(key[0][:4]) for key in keys]


def test_more_faces_than_one_call_takes_keep_their_order(run, out, names, monkeypatch):
    monkeypatch.setattr(worker, "FACES_OF_A_CALL", 2)
    run(detector=find, part_size=100)
    table = pq.read_table(out)
    firsts = [row[0] for row in table["embedding"].to_pylist()]
    assert firsts == [int(path[:4]) for path in table["path"].to_pylist()]


def test_a_folder_with_nothing_readable_gives_no_row(run, out, folder, names):
    for name in names:
        (folder / name).write_bytes(b"")
    result = run()
    assert (result.rows, result.unreadable) == (0, 10)
    assert pq.read_table(out).num_rows == 0
    assert set(report(out)) == set(names)


def test_a_report_of_an_earlier_job_is_removed(run, out, folder):
    (folder / "bad.png").touch()
    assert run().unreadable_report.exists()
    (folder / "bad.png").unlink()
    assert run(force=True).unreadable_report is None
    assert not out.with_suffix(".unreadable.csv").exists()


def test_an_output_that_cannot_be_written_is_refused_before_any_work(run, out, tmp_path, model):
    out.write_bytes(b"precious")
    (tmp_path / "folder.parquet").mkdir()
    for target, message in (
        (out, "--force"),
        (tmp_path / "faces.npz", r"must end in \.parquet"),
        (tmp_path / "folder.parquet", "is a folder"),
        (tmp_path / "none" / "x.parquet", "there is no folder"),
        ("/proc/x.parquet", "/proc/.* cannot be written: No such file"),
    ):
        with pytest.raises(OutputError, match=message):
            run(target=target)
    assert (model.faces, out.read_bytes()) == (0, b"precious")
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".mstkd")]


def test_an_output_that_appears_during_the_job_is_not_overwritten(run, out, model, names, rows):
    model.before_embed = lambda faces: out.write_bytes(b"precious")
    with pytest.raises(OutputError, match="--force"):
        run()
    assert out.read_bytes() == b"precious"
    model.before_embed = lambda faces: pytest.fail("all was done already")
    run(force=True)
    assert len(rows(out)) == len(names)


@pytest.mark.parametrize("options", [{"part_size": 0}, {"workers": 0}, {"engine": "spark"}])
def test_settings_out_of_range(run, options):
    with pytest.raises(InvalidSettings, match="must be"):
        run(**options)


def test_a_model_of_another_alignment_takes_no_detector(run, model):
    model.alignment = "own-template"
    with pytest.raises(ContractMismatch, match="own-template"):
        run(detector=find)


def test_a_detector_that_is_not_there_is_named(run, tmp_path):
    with pytest.raises(BulkError, match=r"yunet\.onnx cannot be read: No such file"):
        run(detector=tmp_path / "yunet.onnx")


def test_without_pyarrow_the_import_names_the_extra_and_ray_is_left_alone():
    code = """if True:
        import sys
        import mstkd_client
        assert "pyarrow" not in sys.modules
        import mstkd_client.bulk
        assert not {"ray", "rich", "cv2"} & set(sys.modules)
        for name in [name for name in sys.modules if name.startswith("mstkd_client.bulk")]:
            del sys.modules[name]
        sys.modules["pyarrow"] = None
        try:
            import mstkd_client.bulk
        except mstkd_client.MissingExtra as error:
            assert "pip install 'mstkd-client[bulk]'" in str(error)
        else:
            raise AssertionError
    """
    subprocess.run([sys.executable, "-c", code], check=True)
