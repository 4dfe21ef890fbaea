"""The report: one HTML file without external resources."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from jaxtyping import Float

from llmsrec.core.files import atomic_write
from llmsrec.evaluation.per_user import MAIN
from llmsrec.evaluation.systems import label
from llmsrec.report.plots import (
    FAMILIES,
    ndcg_by_system,
    original_and_shuffled,
    quality_by_group,
    scatter,
    similarity_histogram,
    svg,
    training_curve,
)
from llmsrec.report.projection import Projection

COLUMNS = ("ndcg@10", "hr@10", "ndcg@20", "hr@20", "mrr")
LIST_COLUMNS = {"coverage@10": "Coverage", "novelty@10": "Novelty, bits", "gini@10": "Gini"}


@dataclass(frozen=True)
class ReportContent:
    """Reports and training curves of earlier stages, as in their JSON files."""

    interactions: dict[str, Any]
    splits: dict[str, Any]
    teacher_training: list[dict[str, int | float]]
    student_training: list[dict[str, int | float]]
    backbone_note: str


@dataclass(frozen=True)
class Diagnostics:
    """What the report shows besides metrics.json."""

    gates: list[dict[str, Any]]
    groups: list[dict[str, Any]]  # NDCG@10 of each system in each group of users
    similarity: dict[str, Float[np.ndarray, "users"]]
    maps: dict[str, Projection]
    cases: list[dict[str, Any]]
    previous: dict[str, Any] | None = None  # metrics.json of the previous run


def write_report(
    path: Path, metrics: dict[str, Any], diagnostics: Diagnostics, content: ReportContent
) -> None:
    """Write report.html."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("llmsrec.report", "."), autoescape=True
    )
    figures = {
        "systems": ndcg_by_system(metrics),
        "shuffled": original_and_shuffled(metrics),
        "similarity": similarity_histogram(diagnostics.similarity),
        **{family: quality_by_group(diagnostics.groups, family) for family in FAMILIES},
        "teacher": training_curve(content.teacher_training, "epoch"),
        "student": training_curve(content.student_training, "step"),
    }
    page = environment.get_template("report.html").render(
        metrics=metrics,
        label=label,
        columns=COLUMNS,
        list_columns=LIST_COLUMNS,
        best={protocol: _best(metrics, protocol) for protocol in ("sampled", "full")},
        rivals={main: _rivals(metrics, main) for main in MAIN},
        order=_order(metrics),
        protocols=_protocols(metrics),
        pictures={name: svg(figure) if figure else "" for name, figure in figures.items()},
        facts=_dataset_facts(content),
        maps={name: (each, svg(scatter(each))) for name, each in diagnostics.maps.items()},
        cases=diagnostics.cases,
        gates=sorted(diagnostics.gates, key=lambda gate: (gate["success"], gate["severity"])),
        changes=_changes(metrics, diagnostics.previous),
        sizes=_sizes(diagnostics.groups),
        backbone_note=content.backbone_note,
    )
    with atomic_write(path) as aside:
        aside.write_text(page, encoding="utf-8")


def _changes(metrics: dict[str, Any], previous: dict[str, Any] | None) -> list[dict[str, Any]]:
    """NDCG@10 of each system now and in the previous run, for systems that both have."""
    if previous is None:
        return []
    rows = []
    for name in metrics["systems"]:
        for protocol in ("sampled", "full"):
            now, then = (
                run["systems"].get(name, {}).get(protocol, {}).get("ndcg@10")
                for run in (metrics, previous)
            )
            if now and then:
                overlap = now["low"] <= then["high"] and then["low"] <= now["high"]
                rows.append(
                    {
                        "system": name,
                        "protocol": protocol,
                        "now": now,
                        "then": then,
                        "overlap": overlap,
                    }
                )
    return rows


def _rivals(metrics: dict[str, Any], main: str) -> dict[str, dict[str, Any]]:
    """By the label of each other system: the differences of `main` in both rankings; the strongest rival first."""
    pairs = {label(b): rows for (a, b), rows in _pairs(metrics).items() if a == main}
    worst = {name: min(row["relative"] for row in rows.values()) for name, rows in pairs.items()}
    return {name: pairs[name] for name in sorted(pairs, key=lambda name: worst[name])}


def _order(metrics: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """By the names of two systems of which one does not know the order: their differences in both rankings."""
    return {
        f"{label(a)} − {label(b)}": rows  # noqa: RUF001 (a minus)
        for (a, b), rows in _pairs(metrics).items()
        if a != "student"
    }


def _pairs(metrics: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    pairs: dict[tuple[str, str], dict[str, Any]] = {}
    for row in metrics["differences"]:
        pairs.setdefault((row["a"], row["b"]), {})[row["protocol"]] = row
    return pairs


def _sizes(groups: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """The number of users in each group of each family."""
    sizes: dict[str, dict[str, int]] = {}
    for row in groups:
        sizes.setdefault(row["family"], {})[row["group"]] = row["users"]
    return sizes


def _best(metrics: dict[str, Any], protocol: str) -> str:
    return max(
        metrics["systems"], key=lambda name: metrics["systems"][name][protocol]["ndcg@10"]["value"]
    )


def _protocols(metrics: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [
        ("sampled", f"Among {metrics['candidates']} candidates",
         f"The target and {metrics['candidates'] - 1} random items without an interaction; the same for every system."),
        ("full", "Among all items", "Every item of the catalog that is not in the history."),
    ]  # fmt: skip


def _dataset_facts(content: ReportContent) -> list[tuple[str, str]]:
    reviews, splits = content.interactions["reviews"], content.splits
    return [
        ("Raw lines", f"{reviews['lines']:,}"),
        ("Rejected lines", f"{reviews['rejects']:,}"),
        ("Duplicates", f"{reviews['duplicates']:,}"),
        ("Users after the k-core", f"{splits['users']:,}"),
        ("Items after the k-core", f"{splits['items']:,}"),
        ("Interactions after the k-core", f"{splits['interactions']:,}"),
        ("Interactions per user", f"{splits['mean_length']:.1f}"),
        ("Same timestamp as the one before", f"{100 * splits['tie_share']:.0f}%"),
        ("Items without metadata", f"{content.interactions['items_without_metadata']:,}"),
        ("First and last day", f"{content.interactions['first_day']} to {content.interactions['last_day']}"),
    ]  # fmt: skip
