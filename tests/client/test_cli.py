"""The command `mstkd-client`: what it prints, what it writes, its exit status."""

import json
import os
import subprocess
import sys

import grpc
import numpy as np
import pytest
from PIL import Image

from mstkd_client import FaceClient
from mstkd_client.cli import main


@pytest.fixture
def files(faces, tmp_path):
    paths = [tmp_path / f"{index}.png" for index in range(3)]
    for path, face in zip(paths, faces, strict=False):
        Image.fromarray(face).save(path)
    return [str(path) for path in paths]


@pytest.fixture
def at(triton, monkeypatch):
    monkeypatch.setenv("MSTKD_URL", triton.url)
    return triton


def refused(capsys, *arguments):
    """Run the command, expect status 2 and one line on stderr, and return that line."""
    assert main([str(argument) for argument in arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert printed.err.startswith("mstkd-client: ")
    return printed.err


def test_embed_writes_vectors_names_and_ids(at, faces, files, tmp_path, capsys):
    out = tmp_path / "out.npz"
    assert main(["embed", *files, "--out", str(out)]) == 0
    with np.load(out, allow_pickle=False) as written:
        np.testing.assert_array_equal(written["vectors"], at.embed(faces[:3]))
        assert written["names"].tolist() == files
        assert str(written["contract_id"]) == at.contract_id
        assert (str(written["model_name"]), str(written["model_version"])) == ("student", "1")
    assert "3 embeddings of dimension 4" in capsys.readouterr().out


def test_embed_overwrites_only_by_force(at, files, tmp_path, capsys):
    out = tmp_path / "out.npz"
    out.write_text("precious")
    assert "--force" in refused(capsys, "embed", files[0], "--out", out)
    assert out.read_text() == "precious"
    assert at.calls == []
    old = tmp_path / "old.npz"
    old.hardlink_to(out)
    assert main(["embed", files[0], "--out", str(out), "--force"]) == 0
    assert old.read_text() == "precious", "written in place, so a reader could see a half"
    assert np.load(out)["vectors"].shape == (1, 4)


def test_a_failed_embed_leaves_nothing_behind(at, files, tmp_path, capsys):
    target = tmp_path / "results"
    target.mkdir()
    message = refused(capsys, "embed", files[0], tmp_path / "none.png", "--out", target / "a.npz")
    assert "none.png) does not exist" in message
    assert list(target.iterdir()) == []


def test_a_write_that_fails_half_way_keeps_the_old_file(at, files, tmp_path, capsys, monkeypatch):
    out = tmp_path / "results" / "a.npz"
    out.parent.mkdir()
    out.write_text("precious")

    def no_space(file, **arrays):
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", no_space)
    assert "No space left" in refused(capsys, "embed", files[0], "--out", out, "--force")
    assert out.read_text() == "precious"
    assert list(out.parent.iterdir()) == [out]


@pytest.mark.parametrize(("out", "problem"), [("", "is a folder"), ("no/a.npz", "no folder")])
def test_embed_checks_the_output_before_it_works(at, files, tmp_path, capsys, out, problem):
    assert problem in refused(capsys, "embed", files[0], "--out", tmp_path / out)
    assert at.calls == []


def test_verify_prints_the_score(at, files, capsys):
    with FaceClient(at.url) as client:
        score = client.verify(files[0], files[1]).score
    assert main(["verify", files[0], files[1]]) == 0
    assert f"{score:.4f}" in capsys.readouterr().out
    assert main(["verify", files[0], files[1], "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed.pop("timing")["requests"] == 1
    assert {key: value for key, value in printed.items() if value is not None} == {
        "score": score,
        "contract_id": at.contract_id,
        "model_name": "student",
        "model_version": "1",
    }


def test_verify_prints_the_decision_of_a_calibrated_model(at, files, capsys):
    assert main(["verify", files[0], files[0]]) == 0
    assert "not calibrated" in capsys.readouterr().out
    at.parameters["mstkd.calibration"] = json.dumps(
        {
            "threshold": 0.4,
            "fmr": 0.001,
            "policy": "worst_group",
            "group_fmr": {"a": 0.0009},
            "group_fnmr": {"a": 0.1},
            "data": "pairs.csv",
            "pairs": 9,
            "contract_id": at.contract_id,
        }
    )
    assert main(["verify", files[0], files[0]]) == 0
    printed = capsys.readouterr().out
    assert "accepted at 0.4000, chosen for a false match rate of 0.001 on pairs.csv" in printed
    assert "worst group's is 0.0009" in printed


def test_info_prints_the_model(at, capsys):
    assert main(["info", "--json"]) == 0
    info = json.loads(capsys.readouterr().out)
    assert (info["model_name"], info["embedding_dim"]) == ("student", 4)
    assert info["contract"]["alignment"] == "arcface-112"
    assert main(["info"]) == 0
    assert "embedding_dim     4\n" in capsys.readouterr().out


def test_the_url_option_goes_before_the_environment(triton, monkeypatch, capsys):
    monkeypatch.setenv("MSTKD_URL", "127.0.0.1:1")
    assert main(["info", "--url", triton.url]) == 0
    assert "student" in capsys.readouterr().out
    assert "127.0.0.1:1 " in refused(capsys, "info")


def test_an_empty_url_variable_counts_as_none(monkeypatch, capsys):
    monkeypatch.setenv("MSTKD_URL", "")
    assert main(["info", "--timeout", "0"]) == 2
    assert "timeout" in capsys.readouterr().err


def test_mistakes_are_one_line(at, capsys):
    assert "http://x" in refused(capsys, "info", "--url", "http://x")
    assert "'teacher'" in refused(capsys, "info", "--model", "teacher")
    at.failure = (grpc.StatusCode.INTERNAL, "first line\n  second line")
    assert "first line second line" in refused(capsys, "info")


def test_an_interrupt_is_130(at, monkeypatch, capsys):
    def interrupted(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(FaceClient, "info", interrupted)
    assert main(["info"]) == 130
    assert capsys.readouterr().err == "mstkd-client: interrupted\n"


def test_unknown_arguments_are_2():
    with pytest.raises(SystemExit) as caught:
        main(["embed"])
    assert caught.value.code == 2


def test_the_module_runs_as_the_command(at, files):
    done = subprocess.run(
        [sys.executable, "-m", "mstkd_client", "verify", files[0], files[0]],
        env=os.environ | {"MSTKD_URL": at.url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "1.0000" in done.stdout
