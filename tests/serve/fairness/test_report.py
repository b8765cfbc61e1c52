import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
import yaml
from PIL import Image

from mstkd_serve.fairness.evaluate import evaluate
from mstkd_serve.fairness.report import write_report
from mstkd_serve.fairness.schema import Metrics, ModelDescription
from mstkd_serve.fairness.scores import make_scores

HOSTILE = "<script>alert('x')</script>|*\"&"


def metrics_of(pairs: int = 4000, names: tuple[str, str] = ("a", "b")) -> Metrics:
    rng = np.random.default_rng(0)
    genuine = np.arange(pairs) % 2 == 0
    group = [names[index // 2 % 2] for index in range(pairs)]
    score = rng.normal(0.5 * genuine, 0.15)
    return evaluate(
        make_scores(group, genuine, score, source=HOSTILE if names[0] == HOSTILE else "test"),
        bootstrap=100,
        model=ModelDescription(name=names[0]),
    )


class Balanced(HTMLParser):
    """Checks that tags are closed in order."""

    void = frozenset({"meta", "line", "circle", "polyline", "polygon", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def page_of(tmp_path, metrics, compare=()) -> str:
    report, card = write_report(metrics, tmp_path / "out", compare)
    assert (report.name, card.name) == ("report.html", "MODEL_CARD.md")
    return report.read_text()


def test_the_page_is_well_formed_and_loads_nothing(tmp_path):
    page = page_of(tmp_path, metrics_of())
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    tags = [tag for tag, _ in parser.seen]
    assert "script" not in tags
    assert not {"link", "img", "iframe", "object"} & set(tags)
    attributes = [name for _, attrs in parser.seen for name in attrs]
    assert not {"src", "href"} & set(attributes)
    assert "http" not in page
    assert "url(" not in page
    assert tags.count("svg") == tags.count("title") - 1 == tags.count("desc") == 4


def test_figures_on_the_page_are_those_of_the_metrics(tmp_path):
    metrics = metrics_of()
    page = page_of(tmp_path, metrics)
    for group in metrics.groups.values():
        assert f"{group.accuracy:.2f}\u00a0%" in page
        assert f"{group.own.accuracy:.2f}\u00a0%" in page
    assert f"{metrics.summary.std:.3f}" in page
    assert f"{metrics.summary.per_group_thresholds.std:.3f}" in page


def test_names_from_data_cannot_break_out(tmp_path):
    page = page_of(tmp_path, metrics_of(names=(HOSTILE, "b")))
    assert "<script>" not in page
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    card = (tmp_path / "out" / "MODEL_CARD.md").read_text()
    body = card.split("---", 2)[2]
    assert "<script>" not in body
    rows = [line for line in body.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1


def test_small_samples_are_shouted(tmp_path):
    page = page_of(tmp_path, metrics_of(pairs=80))
    box = page.index('class="serious"')
    assert box < page.index("Mean accuracy")
    assert "Do not rely on these figures" in page
    assert "has 20 genuine pairs only" in page


def test_undefined_figures_are_words(tmp_path):
    perfect = evaluate(make_scores("aabb", [1, 0] * 2, [0.9, 0.1, 0.9, 0.95]), threshold=0.5)
    page = page_of(tmp_path, perfect)
    assert "undefined" in page
    assert "no false match seen" in page
    assert "too few pairs" in page
    assert not re.search(r"\b(nan|inf|None)\b", page)


def test_other_models_stand_side_by_side(tmp_path):
    page = page_of(tmp_path, metrics_of(names=("mine", "b")), [metrics_of(names=("other", "b"))])
    assert "Against other models" in page
    assert "Differences smaller than the 95 % intervals are noise" in page


def test_model_card_has_a_yaml_head_with_the_results(tmp_path):
    metrics = metrics_of()
    page_of(tmp_path, metrics)
    card = (tmp_path / "out" / "MODEL_CARD.md").read_text()
    head = yaml.safe_load(card.split("---")[1])
    (result,) = head["model-index"][0]["results"]
    assert result["metrics"][0]["value"] == pytest.approx(metrics.summary.accuracy_mean, rel=1e-5)
    for heading in ("Model details", "Intended use", "Limitations", "Ethical considerations"):
        assert f"## {heading}" in card


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium to draw the page: install chromium")
@pytest.mark.parametrize("width", [1280, 500])
def test_the_page_looks_like_a_report(tmp_path, width):
    page_of(tmp_path, metrics_of())
    picture = tmp_path / "page.png"
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
        "--no-first-run", "--disable-background-networking", "--disable-component-update",
        "--disable-sync", "--hide-scrollbars", f"--user-data-dir={tmp_path / 'profile'}",
        f"--window-size={width},3600", f"--screenshot={picture}",
        (tmp_path / "out" / "report.html").as_uri(),
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    with Image.open(picture) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    assert pixels.shape[1] == width
    # The histograms are painted: blue and orange fills, half transparent on white.
    for colour in ((115, 177, 213), (236, 183, 140)):
        assert (np.abs(pixels - colour).sum(axis=2) < 30).sum() > 2000
    # Cards end before the right edge: nothing makes the page scroll sideways.
    margin = pixels[200:3000, -6:]
    assert (np.abs(margin - (244, 246, 249)).sum(axis=2) < 12).mean() > 0.99
