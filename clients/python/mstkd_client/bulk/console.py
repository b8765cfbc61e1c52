"""A job's progress on a terminal, or as plain lines where stderr is none."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, TextIO

from mstkd_client.bulk.progress import OnProgress, Progress

SECONDS_BETWEEN_LINES: Final = 10.0


@contextmanager
def show_progress(stream: TextIO | None = None) -> Iterator[OnProgress]:
    """Show the progress of a job while the block runs.

    Args:
        stream: Where to; stderr by default. A terminal gets a bar (where `rich` is installed),
            anything else a line every ten seconds and one at the end.

    Yields:
        What to give to `embed_files` as `on_progress`.
    """
    target = sys.stderr if stream is None else stream
    if not target.isatty():
        yield _lines(target)
        return
    try:
        from rich import console, progress
    except ImportError:
        yield _lines(target)
        return
    bar = progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.fields[detail]}"),
        progress.TimeRemainingColumn(),
        console=console.Console(file=target),
    )
    with bar:
        task = bar.add_task("files", total=None, detail="")

        def show(state: Progress) -> None:
            bar.update(
                task, total=state.files_total, completed=state.files_done, detail=_detail(state)
            )

        yield show


def _lines(target: TextIO) -> OnProgress:
    last_time, last_done = -SECONDS_BETWEEN_LINES, -1

    def show(state: Progress) -> None:
        nonlocal last_time, last_done
        now = time.monotonic()
        finished = state.files_done == state.files_total != last_done
        if finished or now - last_time >= SECONDS_BETWEEN_LINES:
            last_time, last_done = now, state.files_done
            line = f"{state.files_done}/{state.files_total} files, {_detail(state)}"
            print(line, file=target, flush=True)

    return show


def _detail(state: Progress) -> str:
    text = f"{state.rows} faces, {state.unreadable} unreadable, {state.files_per_second:.0f}/s"
    return f"{text}, resumed from {state.resumed_from}" if state.resumed_from else text
