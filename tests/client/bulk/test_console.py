import io
import sys

from mstkd_client.bulk import Progress, console, show_progress


def state(done, resumed=0):
    return Progress(done, 1000, done - 1, 1, 50.0, resumed)


def test_plain_lines_where_there_is_no_terminal(monkeypatch):
    now = 100.0
    monkeypatch.setattr(console.time, "monotonic", lambda: now)
    stream = io.StringIO()
    with show_progress(stream) as show:
        for done in range(1, 1001):
            now += 0.03
            show(state(done, resumed=1))
    lines = stream.getvalue().splitlines()
    assert len(lines) == 4
    assert lines[-1] == "1000/1000 files, 999 faces, 1 unreadable, 50/s, resumed from 1"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_bar_on_a_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    stream = Terminal()
    with show_progress(stream) as show:
        show(state(1000))
    assert "1000/1000" in stream.getvalue()
    assert "999 faces, 1 unreadable" in stream.getvalue()


def test_a_terminal_without_rich_gets_lines(monkeypatch):
    monkeypatch.setitem(sys.modules, "rich", None)
    stream = Terminal()
    with show_progress(stream) as show:
        show(state(1000))
    assert stream.getvalue().startswith("1000/1000 files")
