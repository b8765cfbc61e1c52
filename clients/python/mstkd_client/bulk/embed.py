"""Embed all files of a folder or a list into one Parquet file, and go on after any interruption."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from mstkd_client._errors import ContractMismatch, InvalidSettings
from mstkd_client.align import ALIGNMENT
from mstkd_client.bulk.job import Job, Model, abandon, locked_folder, require_same
from mstkd_client.bulk.parts import PartSummary, read_summary
from mstkd_client.bulk.progress import BulkResult, Meter, OnProgress
from mstkd_client.bulk.publish import Done, check_output, join_parts, publish
from mstkd_client.bulk.reading import Detector, Reader, identify_detector
from mstkd_client.bulk.sources import Source, open_source
from mstkd_client.bulk.worker import Connect, Worker, connect_client, identify_model

Engine = Literal["local", "ray"]


def embed_files(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    connect: Connect,
    detector: Detector | None = None,
    part_size: int = 1024,
    engine: Engine = "local",
    workers: int | None = None,
    ray_address: str | None = None,
    force: bool = False,
    restart: bool = False,
    on_progress: OnProgress | None = None,
) -> BulkResult:
    """Embed every image file of a source, each exactly once, into a Parquet file.

    The work is kept in a hidden folder beside `out` part by part. After a crash, a kill or an
    error the same call goes on after the parts that were finished, over the list of files that
    was made when the job began. The folder takes about twice the space of `out`.

    Args:
        source: A folder, searched with its subfolders, or a UTF-8 text file with a path a line,
            relative to that file's folder. Each path counts once, in sorted order.
        out: The Parquet file to write: `path` (relative to the folder, or as the list gives it),
            `face` (int32, index within the photo), `embedding` (float32 list of the model's
            dimension); with a detector also `score` (float32, 0 to 1) and `bbox` (4 float32,
            xyxy in pixels). The model is in the metadata `mstkd.contract_id`, `mstkd.contract`,
            `mstkd.model_name` and `mstkd.model_version`. Files that gave no face are listed in
            a CSV file beside it, `.unreadable.csv`.
        connect: Keyword arguments of `FaceClient`, or a function that makes a client.
        detector: The path of a YuNet ONNX file: each file is then a photo of any number of
            faces. None: each file is one aligned 112x112 face.
        part_size: Files of a part, the unit that is finished or begun anew. A resumed job keeps
            the size it was begun with.
        engine: `local`: this process. `ray`: worker processes of a Ray cluster, whose machines
            all see the source, the detector and the folder of `out` under the same paths, have
            mstkd-client installed, and reach the server at the address in `connect`.
        workers: Threads that read files (`local`) or worker processes (`ray`).
        ray_address: Of the cluster for `ray`; None starts one on this machine for this job.
        force: Overwrite `out` if it exists.
        restart: Drop the work of an unfinished job on `out` and begin anew.
        on_progress: Called with a `Progress` now and then, in this thread.

    Raises:
        InvalidSettings: `part_size`, `workers` or `engine` is out of range.
        SourceError: The source cannot be used, or holds no image.
        OutputError: The output cannot or must not be written.
        JobMismatch: The unfinished job was begun with another source, model or detector.
        JobLocked: Another process works on `out`.
        MissingExtra: What the engine or the detector needs is not installed.
        MstkdClientError: Its other subclasses, for a server that fails; finished parts are kept.
        KeyboardInterrupt: Ctrl-C; finished parts are kept.
    """
    if part_size < 1 or (workers is not None and workers < 1):
        raise InvalidSettings(f"part_size ({part_size}) and workers ({workers}) must be 1 or more")
    if engine not in ("local", "ray"):
        raise InvalidSettings(f"engine {engine!r} must be 'local' or 'ray'")
    if isinstance(detector, str | os.PathLike):
        detector = os.path.abspath(detector)
    target = Path(os.path.abspath(out))
    check_output(target, force=True)
    listed = open_source(source)
    name = identify_detector(detector)
    with locked_folder(target) as folder:
        if restart:
            abandon(folder)
        if done := Done.load(folder):
            _require_done(folder, done, listed, name)
            return publish(folder, done, target, force=force)
        check_output(target, force=force)
        job = _begin(folder, listed, name, connect, detector, part_size)
        finished = [read_summary(job, part) for part in range(len(job.offsets))]
        meter = _meter(job, finished, on_progress)
        pending = [part for part, summary in enumerate(finished) if summary is None]
        if pending:
            if engine == "ray":
                summaries = _on_ray(job, connect, detector, pending, workers, ray_address)
            else:
                summaries = _here(job, connect, detector, pending, workers, meter)
            for summary in summaries:
                meter.part_done(summary.files, summary.rows, summary.unreadable)
        return publish(folder, join_parts(job), target, force=force)


def _begin(
    folder: Path,
    source: Source,
    name: str,
    connect: Connect,
    detector: Detector | None,
    part_size: int,
) -> Job:
    """Make or reopen the job in a work folder, once all that it needs is found to be there."""
    Reader(source.base, detector)
    client = connect_client(connect)
    try:
        model = identify_model(client)
        if detector is not None:
            _check_alignment(model)
    finally:
        client.close()
    job = Job.load(folder)
    if job is None:
        return Job.create(folder, source, model, detector=name, part_size=part_size)
    job.require(source, model, name)
    return job


def _check_alignment(model: Model) -> None:
    """Raise ContractMismatch where a detector's faces are not cut as the model wants them."""
    wanted = model.contract.get("alignment", ALIGNMENT)
    if wanted != ALIGNMENT:
        raise ContractMismatch(
            f"model {model.model_name!r} wants faces aligned to {wanted!r}; a detector's are cut "
            f"to {ALIGNMENT!r}. Align the photos yourself and embed the crops."
        )


def _require_done(folder: Path, done: Done, source: Source, name: str) -> None:
    require_same(
        folder,
        {
            "source": (done.source, os.fsdecode(source.path)),
            "content of the list": (done.digest, source.digest),
            "detector": (done.detector, name),
        },
    )


def _meter(
    job: Job, finished: Iterable[PartSummary | None], on_progress: OnProgress | None
) -> Meter:
    there = [summary for summary in finished if summary is not None]
    return Meter(
        on_progress,
        job.files,
        resumed_from=sum(summary.files for summary in there),
        rows=sum(summary.rows for summary in there),
        unreadable=sum(summary.unreadable for summary in there),
    )


def _here(
    job: Job,
    connect: Connect,
    detector: Detector | None,
    pending: list[int],
    workers: int | None,
    meter: Meter,
) -> Iterator[PartSummary]:
    threads = workers or min(8, os.cpu_count() or 1)
    with Worker(job, connect, detector, threads) as worker:
        yield from worker.run(pending, meter.file_done)


def _on_ray(
    job: Job,
    connect: Connect,
    detector: Detector | None,
    pending: list[int],
    workers: int | None,
    address: str | None,
) -> Iterator[PartSummary]:
    from mstkd_client.bulk.ray_engine import run_on_ray

    return run_on_ray(job, connect, detector, pending, workers=workers, address=address)
