"""The report: one HTML file that a colleague can open anywhere, without a network."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from llmsrec.data.splits import Splits
from llmsrec.evaluation.plots import (
    NAMES,
    ndcg_by_system,
    original_and_shuffled,
    svg,
    training_curve,
)
from llmsrec.evaluation.ranker import Ranker
from llmsrec.files import whole_file

SHOWN = ("ndcg@10", "hr@10", "ndcg@20", "hr@20", "mrr")
NUM_CASES = 4


@dataclass(frozen=True)
class Story:
    """What stands around the numbers: reports of earlier steps and training curves, as their JSON has them."""

    interactions: dict[str, Any]
    splits: dict[str, Any]
    teacher_training: list[dict[str, int | float]]
    student_training: list[dict[str, int | float]]
    backbone_note: str


def write_report(
    path: Path, metrics: dict[str, Any], cases: list[dict[str, Any]], story: Story
) -> None:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("llmsrec.evaluation", "."), autoescape=True
    )
    figures = {
        "sampled": ndcg_by_system(metrics, "sampled"),
        "full": ndcg_by_system(metrics, "full"),
        "shuffled": original_and_shuffled(metrics),
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
        cases=cases,
        backbone_note=story.backbone_note,
    )
    with whole_file(path) as aside:
        aside.write_text(page, encoding="utf-8")


def verdict(metrics: dict[str, Any]) -> list[str]:
    """What the intervals allow to be said, in sentences."""
    found = {
        (row["a"], row["b"]): row for row in metrics["differences"] if row["protocol"] == "sampled"
    }
    sentences = []
    if gap := found.get(("student", "teacher")):
        sentences.append(f"The student {_compared(gap, 'its teacher')} on NDCG@10 ({_range(gap)}).")
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


def pick_cases(rankers: dict[str, Ranker], splits: Splits) -> list[dict[str, Any]]:
    """A few test users at even distances, with what each model puts first."""
    candidates = splits.candidates["test"]
    rows = np.unique(np.linspace(0, len(candidates) - 1, NUM_CASES + 2).astype(np.int64)[1:-1])
    histories, users = splits.histories("test").take(rows), splits.evaluated("test").users[rows]
    titles = splits.catalog.titles
    scores = {name: np.array(ranker.score(histories)) for name, ranker in rankers.items()}
    cases = []
    for place, row in enumerate(rows):
        seen, target = histories[place], int(candidates.targets[row])
        recommended, ranks = {}, {}
        for name, matrix in scores.items():
            own = matrix[place]
            own[0] = -np.inf
            own[np.setdiff1d(seen, [target])] = -np.inf
            recommended[name] = [titles[item] for item in np.argsort(-own, kind="stable")[:3]]
            ranks[name] = int((own > own[target]).sum()) + 1
        cases.append(
            {
                "user": int(users[place]) + 1,
                "history": [titles[item] for item in seen[-6:]],
                "target": titles[target],
                "recommended": recommended,
                "ranks": ranks,
            }
        )
    return cases


def _compared(gap: dict[str, Any], other: str) -> str:
    if gap["low"] > 0:
        return f"beats {other}"
    if gap["high"] < 0:
        return f"falls behind {other}"
    return f"cannot be told from {other}"


def _range(gap: dict[str, Any]) -> str:
    return f"{gap['value']:+.4f}, 95% interval {gap['low']:+.4f} to {gap['high']:+.4f}"


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


def _facts(story: Story) -> list[tuple[str, str]]:
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
