"""Read Triton's own reason for a failure from its log."""

import re

_ERROR = re.compile(r'^E\d{4} \d\d:\d\d:\d\d\.\d+ \d+ \S+\] "?(?P<text>.*?)"?$', re.MULTILINE)
_FATAL = re.compile(r"^error: (?P<text>.*)$", re.MULTILINE)


def failure_reasons(log: str) -> str:
    """Return Triton's error lines, each once, without time stamps and source positions.

    Args:
        log: Everything the server wrote.
    """
    found = [match["text"] for pattern in (_ERROR, _FATAL) for match in pattern.finditer(log)]
    lines = list(dict.fromkeys(text.strip() for text in found if text.strip()))
    if not lines:
        lines = [line for line in log.strip().splitlines() if line.strip()][-1:]
    return "; ".join(lines) or "it wrote nothing"
