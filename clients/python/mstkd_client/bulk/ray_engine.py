"""The engine `ray`: parts are embedded by an actor pool of Ray Data. The only user of ray.

An actor writes its part by the same step as the local engine: whole, under a name that depends
on the part alone. A part that is done twice, because a worker died or was thought dead, is
therefore there once.
"""

import logging
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from mstkd_client._errors import MissingExtra, MstkdClientError
from mstkd_client._resolve import portable
from mstkd_client._settings import DEFAULT_URL
from mstkd_client._sync import FaceClient
from mstkd_client.bulk._errors import BulkError
from mstkd_client.bulk.job import Job
from mstkd_client.bulk.parts import PartSummary, read_summary
from mstkd_client.bulk.reading import Detector
from mstkd_client.bulk.worker import Connect, Worker

READING_THREADS: Final = 2
"""Threads of a worker process that read files."""
MAX_BLOCKS: Final = 4096
"""Ray keeps an object a block; parts beyond that share blocks."""
CONNECT_SECONDS: Final = 10.0


def run_on_ray(
    job: Job,
    connect: Connect,
    detector: Detector | None,
    pending: list[int],
    *,
    workers: int | None = None,
    address: str | None = None,
) -> Iterator[PartSummary]:
    """Embed parts on a Ray cluster, in any order.

    Args:
        job: The job; its folder, source and detector have the same paths on all machines.
        connect: How each worker reaches the server; picklable. What settings it leaves open come
            from this process's environment and configuration file, not from the worker's.
        detector: The job's detector, or None; picklable.
        pending: Numbers of the parts, at least one.
        workers: Worker processes; by default one for each CPU of the cluster.
        address: Of the cluster. None uses the one that this process is connected to, or else
            starts one here and stops it afterwards.

    Yields:
        The summary of each part once it is on disk.

    Raises:
        MissingExtra: Ray Data is not installed.
        BulkError: No cluster answers, or a worker broke.
        MstkdClientError: Its other subclasses, as a worker met them.
    """
    ray = _import_ray()
    with _cluster(ray, workers, address) as cpus:
        count = workers or cpus
        _be_quiet(ray)
        dataset = ray.data.from_items(
            [{"part": part} for part in pending],
            override_num_blocks=min(len(pending), MAX_BLOCKS),
        ).map_batches(
            PartActor,
            fn_constructor_args=(os.fspath(job.folder), _portable(connect), detector),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(min_size=min(count, cpus), max_size=count),
            num_cpus=1,
        )
        try:
            for row in dataset.iter_rows():
                if row["error"]:
                    raise _revive(row["error"], row["text"])
                yield PartSummary(*(int(row[name]) for name in PartSummary._fields))
        except ray.exceptions.RayError as error:
            raise BulkError(
                f"a worker of the Ray cluster broke: {_first_line(error)}. Start the same command "
                "again: finished parts are kept."
            ) from error


class _Connection:
    """Makes a client on any machine as it would be made here. Its repr shows no credentials.

    Args:
        options: Keyword arguments of `FaceClient`; what they leave open is read here, from this
            process's environment and configuration file.

    Raises:
        InvalidSettings: A setting is unknown or malformed.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = portable(options)

    def __call__(self) -> FaceClient:
        """Make the client."""
        return FaceClient(**self._options)

    def __repr__(self) -> str:
        return f"<connection to {self._options.get('url', DEFAULT_URL)}>"


def _portable(connect: Connect) -> Connect:
    return _Connection(connect) if isinstance(connect, Mapping) else connect


class PartActor:
    """A worker process: one connection, one detector, one part at a time.

    Args:
        folder: The job's work folder.
        connect: How to reach the server.
        detector: The job's detector, or None.
    """

    def __init__(self, folder: str, connect: Connect, detector: Detector | None) -> None:
        self._folder = folder
        self._connect = connect
        self._detector = detector
        self._work: tuple[Job, Worker] | None = None

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[Any]]:
        """Embed the part that is named in `batch`, unless it is done already.

        An error is an answer, not an exception: Ray would wrap it or try again.
        """
        part = int(batch["part"][0])
        summary, error, text = PartSummary(part, 0, 0, 0), "", ""
        try:
            job, worker = self._begin()
            summary = read_summary(job, part) or next(worker.run([part]))
        except MstkdClientError as failure:
            error, text = type(failure).__name__, str(failure)
        except Exception as failure:  # a defect, or a client of the caller's own
            error = BulkError.__name__
            text = f"a worker process failed with {type(failure).__name__}: {failure}"
        columns = {name: [value] for name, value in summary._asdict().items()}
        return {**columns, "error": [error], "text": [text]}

    def _begin(self) -> tuple[Job, Worker]:
        if self._work is None:
            job = Job.load(Path(self._folder))
            if job is None:
                raise BulkError(
                    f"a worker on {os.uname().nodename} does not see the work folder "
                    f"{self._folder}. All machines must share the folders of the source, of the "
                    "output and of the detector."
                )
            self._work = job, Worker(job, self._connect, self._detector, READING_THREADS)
        return self._work


@contextmanager
def _cluster(ray: Any, workers: int | None, address: str | None) -> Iterator[int]:
    """Connect to a cluster, or run one; yields its number of CPUs, at least 1."""
    ours = not ray.is_initialized()
    if ours:
        quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
        try:
            if address is None:
                with _no_telemetry():
                    ray.init(
                        address="local",
                        num_cpus=workers or os.cpu_count() or 1,
                        include_dashboard=False,
                        **quiet,
                    )
            else:
                _reach(address)
                ray.init(address=address, **quiet)
        except (OSError, ray.exceptions.RayError, RuntimeError, ValueError) as error:
            where = f"at {address}" if address else "on this machine"
            raise BulkError(
                f"no Ray cluster {where}: {_first_line(error)}. Give the address that "
                "`ray start --head` printed, or none for a cluster on this machine."
            ) from error
    try:
        yield max(1, int(ray.cluster_resources().get("CPU", 1)))
    finally:
        if ours:
            ray.shutdown()


def _reach(address: str) -> None:
    """Fail at once where nobody listens; Ray would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()


@contextmanager
def _no_telemetry() -> Iterator[None]:
    """Start Ray's processes without its usage statistics."""
    before = os.environ.get("RAY_USAGE_STATS_ENABLED")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ["RAY_USAGE_STATS_ENABLED"]
        else:
            os.environ["RAY_USAGE_STATS_ENABLED"] = before


def _be_quiet(ray: Any) -> None:
    """Keep Ray Data's own reports off the terminal: the job has its own."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)


def _import_ray() -> Any:
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingExtra(
            f"the engine ray needs Ray Data ({error.name or 'ray'} is missing). Install it: "
            "pip install 'mstkd-client[ray]'"
        ) from error
    return ray


def _revive(name: str, text: str) -> MstkdClientError:
    """Make the error that a worker met; a kind that this process does not know is a BulkError."""
    kinds: list[type[MstkdClientError]] = [MstkdClientError]
    for kind in kinds:
        if kind.__name__ == name:
            return kind(text)
        kinds.extend(kind.__subclasses__())
    return BulkError(text)


def _first_line(error: Exception) -> str:
    return (str(getattr(error, "cause", None) or error).strip() or type(error).__name__).split(
        "\n"
    )[0]
