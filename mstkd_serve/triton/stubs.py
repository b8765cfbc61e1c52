"""Watch the processes in which Triton's Python backend runs models.

Triton 2.51 does not notice the death of such a process: the model fails every request, and still
counts as ready. So whoever starts the server watches, by Linux's /proc.
"""

from pathlib import Path

_PROC = Path("/proc")
_STUB = "triton_python_backend_stub"


class StubWatch:
    """The model processes of one server.

    Args:
        server: Process id of the server.
    """

    def __init__(self, server: int) -> None:
        self._server = server
        self._models: dict[int, str] = {}
        self._suspects: set[int] = set()
        self._told: set[int] = set()

    def dead(self) -> list[str]:
        """Return the models whose process died since the last look; ask again and again.

        A process that was ended on purpose is gone after an instant; one that died stays a zombie
        until its model is loaded anew. So it is believed dead at the second look.
        """
        zombies = set()
        for path in _PROC.glob("[0-9]*/stat"):
            try:
                state, parent, *_ = path.read_text().rpartition(")")[2].split()
                pid = int(path.parent.name)
                if int(parent) != self._server:
                    continue
                if state == "Z":
                    zombies.add(pid)
                elif pid not in self._models:
                    words = (path.parent / "cmdline").read_bytes().decode().split("\0")
                    if words[0].endswith(_STUB):
                        self._models[pid] = Path(words[1]).parts[-3]  # .../MODEL/VERSION/model.py
            except (OSError, UnicodeDecodeError, IndexError):
                continue  # it ended while we looked
        found = (zombies & self._suspects & self._models.keys()) - self._told
        self._suspects = zombies
        self._told |= found
        return sorted({self._models[pid] for pid in found})
