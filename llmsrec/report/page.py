"""The report: one HTML file that a colleague can open anywhere, without a network."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from jaxtyping import Float

from llmsrec.core.files import atomic_write
from llmsrec.report.plots import (
    FAMILIES,
    NAMES,
    ndcg_by_system,
    original_and_shuffled,
    quality_by_group,
    scatter,
    similarity_histogram,
    svg,
    training_curve,
)
from llmsrec.report.projection import Projection

SHOWN = ("ndcg@10", "hr@10", "ndcg@20", "hr@20", "mrr")


@dataclass(frozen=True)
class ReportContent:
    """What stands around the numbers: reports of earlier steps and training curves, as their JSON has them."""

    interactions: dict[str, Any]
    splits: dict[str, Any]
    teacher_training: list[dict[str, int | float]]
    student_training: list[dict[str, int | float]]
    backbone_note: str


@dataclass(frozen=True)
class Diagnosis:
    """What the tables do not hold: verdicts, users one by one, places on a map, and the run before this one."""

    gates: list[dict[str, Any]]
    groups: list[dict[str, Any]]  # NDCG@10 of each system in each group of users
    similarity: dict[str, Float[np.ndarray, "users"]]
    maps: dict[str, Projection]
    cases: list[dict[str, Any]]
    previous: dict[str, Any] | None = None  # its metrics.json


def write_report(
    path: Path, metrics: dict[str, Any], diagnosis: Diagnosis, story: ReportContent
) -> None:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("llmsrec.report", "."), autoescape=True
    )
    figures = {
        "sampled": ndcg_by_system(metrics, "sampled"),
        "full": ndcg_by_system(metrics, "full"),
        "shuffled": original_and_shuffled(metrics),
        "similarity": similarity_histogram(diagnosis.similarity),
        **{family: quality_by_group(diagnosis.groups, family) for family in FAMILIES},
        "teacher": training_curve(story.teacher_training, "epoch"),
        "student": training_curve(story.student_training, "step"),
    }
    page = environment.get_template("report.html").render(
        metrics=metrics,
        names=NAMES,
        shown=SHOWN,
        best={protocol: _best(metrics, protocol) for protocol in ("sampled", "full")},
        verdict=verdict(metrics),
        protocols=_protocols(metrics),
        pictures={name: svg(figure) if figure else "" for name, figure in figures.items()},
        facts=_facts(story),
        maps={name: (found, svg(scatter(found))) for name, found in diagnosis.maps.items()},
        cases=diagnosis.cases,
        gates=diagnosis.gates,
        changes=_changes(metrics, diagnosis.previous),
        sizes=_sizes(diagnosis.groups),
        backbone_note=story.backbone_note,
    )
    with atomic_write(path) as aside:
        aside.write_text(page, encoding="utf-8")


def verdict(metrics: dict[str, Any]) -> list[str]:
    """What the intervals allow to be said, in sentences."""
    found, among_all = (
        {(row["a"], row["b"]): row for row in metrics["differences"] if row["protocol"] == protocol}
        for protocol in ("sampled", "full")
    )
    sentences = []
    if gap := found.get(("student", "teacher")):
        said = f"The student {_compared(gap, 'its teacher')} on NDCG@10 ({_range(gap)})"
        if gap := among_all.get(("student", "teacher")):
            said += f"; among all items it {_compared(gap, 'it')} ({_range(gap)})"
        sentences.append(f"{said}.")
    if gap := found.get(("student", "popularity")):
        sentences.append(f"It {_compared(gap, 'popularity')} ({_range(gap)}).")
    costs = [(name, found.get((f"{name}_shuffled", name))) for name in ("student", "teacher")]
    told = [
        f"the {name} {-100 * row['relative']:z.0f}%"  # z: never -0%
        + (" (within noise)" if row["low"] <= 0 <= row["high"] else "")
        for name, row in costs
        if row
    ]
    if told:
        sentences.append(f"Shuffling the history costs {' and '.join(told)} of its NDCG@10.")
    return sentences or ["No two systems could be compared."]


def _compared(gap: dict[str, Any], other: str) -> str:
    if gap["low"] > 0:
        return f"beats {other}"
    if gap["high"] < 0:
        return f"falls behind {other}"
    return f"cannot be told from {other}"


def _range(gap: dict[str, Any]) -> str:
    return f"{gap['value']:+.4f}, 95% interval {gap['low']:+.4f} to {gap['high']:+.4f}"


def _changes(metrics: dict[str, Any], previous: dict[str, Any] | None) -> list[dict[str, Any]]:
    """NDCG@10 of each system now and in the run before, where both have it."""
    if previous is None:
        return []
    rows = []
    for name in NAMES:
        for protocol in ("sampled", "full"):
            now, then = (
                found["systems"].get(name, {}).get(protocol, {}).get("ndcg@10")
                for found in (metrics, previous)
            )
            if now and then:
                told = now["low"] > then["high"] or now["high"] < then["low"]
                rows.append(
                    {"system": name, "protocol": protocol, "now": now, "then": then, "told": told}
                )
    return rows


def _sizes(groups: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """How many users each group holds."""
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
         f"The target and {metrics['candidates'] - 1} random items the user never bought; the same for every system."),
        ("full", "Among all items", "Every item of the catalogue that the user had not bought before."),
    ]  # fmt: skip


def _facts(story: ReportContent) -> list[tuple[str, str]]:
    reviews, splits = story.interactions["reviews"], story.splits
    return [
        ("Raw lines", f"{reviews['lines']:,}"),
        ("Broken, kept apart", f"{reviews['rejects']:,}"),
        ("Duplicates", f"{reviews['duplicates']:,}"),
        ("Users kept", f"{splits['users']:,}"),
        ("Items kept", f"{splits['items']:,}"),
        ("Interactions kept", f"{splits['interactions']:,}"),
        ("Purchases a user", f"{splits['mean_length']:.1f}"),
        ("Same time as the one before", f"{100 * splits['tie_share']:.0f}%"),
        ("Items without metadata", f"{story.interactions['items_without_metadata']:,}"),
        ("First and last day", f"{story.interactions['first_day']} to {story.interactions['last_day']}"),
    ]  # fmt: skip
