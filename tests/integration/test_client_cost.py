"""What the client costs beside bare tritonclient, and that streams need no more memory."""

import statistics
import subprocess
import sys

import pytest

from mstkd_serve.bench.peers import CLIENT_FACES, cpu_seconds
from mstkd_serve.repository import ServingOptions, Target, build_repository

pytestmark = pytest.mark.triton

STREAM = """
import asyncio, gc, resource, sys
import numpy as np
import mstkd_client

kind, where = sys.argv[1:]
made = getattr(mstkd_client, kind)
many = np.random.default_rng(0).integers(0, 256, (100, 112, 112, 3), np.uint8)

def faces(count):
    return (many[index % 100] for index in range(count))

def peak():
    gc.collect()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

async def slowly(count):
    async with made(where) as client:
        return sum([len(batch) async for batch in client.embed_stream(faces(count))])

def stream(count):
    if kind == "AsyncFaceClient":
        return asyncio.run(slowly(count))
    with made(where) as client:
        return sum(len(batch) for batch in client.embed_stream(faces(count)))

stream(500)
before = peak()
assert stream(3000) == 3000
print(peak() - before)
"""


@pytest.mark.parametrize("kind", ["FaceClient", "AsyncFaceClient", "LocalFaceClient"])
def test_memory_does_not_grow_with_the_number_of_faces(kind, served):
    where = str(served.onnx) if kind == "LocalFaceClient" else served.url
    command = [sys.executable, "-c", STREAM, kind, where]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 30 * 1024, "kB; the faces alone hold 110 MB"


@pytest.mark.parametrize(
    "rows", [pytest.param(8, marks=pytest.mark.slow), ServingOptions().max_batch_size]
)
def test_embed_costs_little_more_than_bare_tritonclient(rows, served, serve, tmp_path):
    options = ServingOptions(max_batch_size=rows)
    build_repository(
        {"student": served.onnx}, tmp_path / "repository", target=Target.PYTHON, options=options
    )
    with serve(tmp_path / "repository") as running:
        rounds = [
            (
                cpu_seconds("client", running.url, rows),
                cpu_seconds("tritonclient", running.url, rows),
            )
            for _ in range(3)
        ]
    assert CLIENT_FACES == 10_000
    ratio = statistics.median(ours / theirs for ours, theirs in rounds)
    assert ratio <= 1.15, rounds
