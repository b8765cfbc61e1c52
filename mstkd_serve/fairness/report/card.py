"""The model card, in the layout of Hugging Face (Mitchell et al., "Model Cards", FAT* 2019)."""

import json

from mstkd_serve.fairness.report.numbers import percent, plain, rate, span
from mstkd_serve.fairness.schema import Metrics

_MARKDOWN = str.maketrans({character: f"\\{character}" for character in "\\`*_{}[]<>()#|!~"})


def model_card(metrics: Metrics) -> str:
    """Return the card; what is not known is said to be unknown."""
    name = metrics.model.name or "face verifier"
    summary = metrics.summary
    warnings = [f"- {_text(caution.message)}" for caution in metrics.warnings] or ["- None known."]
    return "\n".join(
        [
            _front_matter(metrics, name),
            f"# {_text(name)}",
            "",
            "## Model details",
            f"- Face contract: {metrics.model.contract_id or 'unknown'}",
            "- Architecture, training data, licence, developers: unknown to this tool; fill in.",
            "",
            "## Intended use",
            "One-to-one verification of aligned 112x112 faces by cosine score. Identification in "
            "large galleries, covert surveillance, and inferring attributes of people are out of "
            "scope: nothing here measures them.",
            "",
            "## Evaluation data",
            f"{metrics.data.pairs:,} pairs in {metrics.data.groups} groups of "
            f"{_text(metrics.data.source)}.",
            "",
            "## Results",
            f"One global threshold, {summary.threshold:.4f} "
            f"({summary.threshold_source.replace('_', ' ')}); accept where score >= threshold.",
            "",
            *_table(metrics),
            "",
            "## Fairness",
            f"- Mean accuracy {percent(summary.accuracy_mean)}"
            + (f" (95 %: {span(i)})" if (i := summary.accuracy_mean_interval) else ""),
            f"- STD over groups {summary.std:.3f} points, ddof {summary.std_ddof}"
            + (f" (95 %: {span(i)})" if (i := summary.std_interval) else ""),
            f"- SER {plain(summary.ser)}, GARBE {plain(summary.garbe)}, FDR {plain(summary.fdr)}, "
            f"IR {plain(summary.ir)}",
            f"- With a threshold for each group: mean "
            f"{percent(summary.per_group_thresholds.accuracy_mean)}, STD "
            f"{summary.per_group_thresholds.std:.3f}",
            "",
            "## Limitations",
            *warnings,
            "",
            "## Ethical considerations",
            "Faces and embeddings are biometric data; processing them may need consent or be "
            "unlawful. Equal error rates over these groups do not make a use fair.",
            "",
        ]
    )


def _table(metrics: Metrics) -> list[str]:
    lines = [
        "| group | genuine | impostor | accuracy | FMR | FNMR | accuracy at own threshold |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, group in metrics.groups.items():
        lines.append(
            f"| {_text(name)} | {group.genuine:,} | {group.impostor:,} "
            f"| {percent(group.accuracy)} | {rate(group.fmr)} | {rate(group.fnmr)} "
            f"| {percent(group.own.accuracy)} |"
        )
    return lines


def _front_matter(metrics: Metrics, name: str) -> str:
    """Return the YAML header; JSON strings are YAML strings, so quoting is JSON's."""
    summary = metrics.summary
    figures = [
        ("accuracy", "mean accuracy over groups, percent", summary.accuracy_mean),
        ("std", "standard deviation over groups, points", summary.std),
    ]
    lines = [
        "---",
        "tags: [face-verification, fairness]",
        "model-index:",
        f"- name: {json.dumps(name)}",
        "  results:",
        "  - task: {type: face-verification}",
        f"    dataset: {{name: {json.dumps(metrics.data.source)}, type: pairs}}",
        "    metrics:",
    ]
    for kind, label, value in figures:
        lines.append(f"    - {{type: {kind}, name: {json.dumps(label)}, value: {value:.6g}}}")
    return "\n".join([*lines, "---", ""])


def _text(text: str) -> str:
    """Escape Markdown and keep to one line."""
    return " ".join(text.split()).translate(_MARKDOWN)
