"""The report that people read: one self-contained HTML file and a model card."""

from collections.abc import Sequence
from pathlib import Path

from mstkd_serve.fairness.report.card import model_card
from mstkd_serve.fairness.report.page import report_page
from mstkd_serve.fairness.schema import Metrics
from mstkd_serve.files import atomic_path

REPORT_FILE = "report.html"
CARD_FILE = "MODEL_CARD.md"


def write_report(metrics: Metrics, out: Path, compare: Sequence[Metrics] = ()) -> list[Path]:
    """Write `report.html` and `MODEL_CARD.md`, each whole or not at all.

    Args:
        metrics: What was measured.
        out: Folder to write to; created.
        compare: Metrics of other models, for a table side by side.

    Returns:
        The files written.
    """
    written = []
    for name, text in (
        (REPORT_FILE, report_page(metrics, compare)),
        (CARD_FILE, model_card(metrics)),
    ):
        with atomic_path(out / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
        written.append(out / name)
    return written
