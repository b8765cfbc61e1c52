"""Run a job in children that die at their n-th change on disk, for every n, and go on with it.

A script of its own, for it forks, which the process of the tests must not: gRPC has threads there.
Usage: kill_at_every_step.py FOLDER OUT. Prints how often a child was killed, and how often the
output was there already.
"""

import os
import signal
import sys
import traceback
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from mstkd_client import Embeddings, ModelInfo
from mstkd_client.bulk import OutputError, embed_files


class Model:
    def close(self):
        pass

    def info(self):
        return ModelInfo("student", ("1",), 4, 8, "0123456789abcdef", {}, "2.51.0")

    def embed(self, faces):
        vectors = np.stack([face.reshape(-1)[:4] for face in faces]).astype(np.float32)
        return Embeddings(vectors, "0123456789abcdef", "student", "1")


def run(folder, out):
    return embed_files(folder, out, connect=Model, part_size=3)


def dies(number, folder, out):
    """Run the job in a child that is killed just before one of its changes on disk."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        assert status in (0, signal.SIGKILL), status  # not SIGALRM, nor an error's exit status
        return status == signal.SIGKILL
    signal.alarm(60)
    changes = 0

    def count(event, arguments):
        nonlocal changes
        writes = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if writes or event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir"):
            changes += 1
            if changes > number:
                os.kill(os.getpid(), signal.SIGKILL)

    try:
        sys.addaudithook(count)
        run(folder, out)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def main(folder, out):
    report = out.with_suffix(".unreadable.csv")
    kills = refused = 0
    expected = None
    while dies(kills, folder, out):
        kills += 1
        try:
            assert run(folder, out).unreadable == 1
        except OutputError as error:  # the child had finished all but its last clean-up
            assert "exists" in str(error), error  # noqa: PT017
            refused += 1
        rows = pq.read_table(out).to_pylist()
        expected = expected or rows
        assert rows == expected, kills
        assert len({row["path"] for row in rows}) == len(rows) == len(os.listdir(folder)) - 1
        assert report.read_text().count("bad.png") == 1, kills
        assert {*out.parent.iterdir()} == {folder, out, report}, kills
        out.unlink()
        report.unlink()
    print(kills, refused)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
