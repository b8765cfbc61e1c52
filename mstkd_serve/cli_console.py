"""What every command prints to, and the exit statuses that they share."""

from typing import Final

from rich.console import Console
from rich.text import Text

USER_MISTAKE: Final = 2
CHECK_FAILED: Final = 1
INTERRUPTED: Final = 130

# Paths and names may hold brackets, so text is never read as markup.
console: Final = Console(highlight=False, soft_wrap=True, markup=False)
errors: Final = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)


def print_error(text: str) -> None:
    """Say what went wrong, on standard error."""
    errors.print(Text("error: ", "bold red") + Text(text))
