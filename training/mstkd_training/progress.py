"""How training tells what it is doing; only the command line chooses where that goes."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text


class Bar(Protocol):
    """A running count of faces."""

    def advance(self, faces: int, shown: Mapping[str, float] | None = None) -> None:
        """Count `faces` more and show the newest values beside the bar."""


class Reporter(Protocol):
    """Where messages and progress go."""

    def message(self, text: str) -> None:
        """Say one line."""

    def bar(self, title: str, total: int, done: int = 0) -> AbstractContextManager[Bar]:
        """Open a progress bar over `total` faces, of which `done` are counted already."""


class SilentReporter:
    """Says nothing."""

    def message(self, text: str) -> None:
        """Drop the line."""

    @contextmanager
    def bar(self, title: str, total: int, done: int = 0) -> Iterator[Bar]:
        """Yield a bar that shows nothing."""
        yield _SilentBar()


class ConsoleReporter:
    """Messages and progress bars on a terminal; in a pipe, one line a finished bar."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def message(self, text: str) -> None:
        """Print one line."""
        self._console.print(escape(text), highlight=False, soft_wrap=True)

    @contextmanager
    def bar(self, title: str, total: int, done: int = 0) -> Iterator[Bar]:
        """Yield a bar with faces a second, time left and the newest values."""
        progress = Progress(
            TextColumn("{task.description:<18}"),
            BarColumn(bar_width=8),
            TextColumn("{task.percentage:>3.0f} %"),
            _Speed(table_column=Column(no_wrap=True, min_width=11)),
            TimeRemainingColumn(),
            TextColumn("{task.fields[shown]}"),
            console=self._console,
        )
        with progress:
            task = progress.add_task(escape(title), total=total, completed=done, shown="")

            class _RichBar:
                def advance(self, faces: int, shown: Mapping[str, float] | None = None) -> None:
                    text = "  ".join(f"{key} {value:.4g}" for key, value in (shown or {}).items())
                    progress.update(task, advance=faces, shown=text)

            yield _RichBar()


class _SilentBar:
    def advance(self, faces: int, shown: Mapping[str, float] | None = None) -> None:
        """Drop it."""


class _Speed(ProgressColumn):
    """Faces a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f} img/s")
