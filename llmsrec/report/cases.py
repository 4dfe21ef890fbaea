"""Case studies selected by rules on the ranks of teacher and student (specification E12)."""

from typing import Any

import numpy as np
from jaxtyping import Bool

from llmsrec.data.splits import Splits
from llmsrec.evaluation.per_user import METRICS, MetricTable
from llmsrec.ranking.ranker import Ranker

RULES = {
    "student": "only the student ranks the next item first",
    "both": "student and teacher rank the next item first",
    "teacher": "only the teacher ranks the next item first",
    "none": "neither ranks the next item among the first ten",
}
SHOWN = ("teacher", "student", "recommender")  # whose lists a case has
HISTORY_LENGTH = 6  # last items shown
TOP_K = 3  # recommendations shown


def select_cases(
    rankers: dict[str, Ranker], splits: Splits, table: MetricTable
) -> list[dict[str, Any]]:
    """For each rule, the first test user that it holds for and the number of such users.

    The rules look at the ranks among the stored candidates; `recommended` and `ranks` are over all items."""
    matches = {rule: np.flatnonzero(mask) for rule, mask in _by_rule(table).items() if mask.any()}
    rows = np.array([matching[0] for matching in matches.values()], dtype=np.int64)
    histories, users = splits.histories("test").take(rows), splits.evaluated("test").users[rows]
    targets, titles = splits.candidates["test"].targets[rows], splits.catalog.titles
    scores = {name: np.array(rankers[name].score(histories)) for name in SHOWN if name in rankers}
    cases = []
    for place, (rule, matching) in enumerate(matches.items()):
        history, target = histories[place], int(targets[place])
        recommended, ranks = {}, {}
        for name, matrix in scores.items():
            row = matrix[place]
            row[0] = -np.inf
            row[np.setdiff1d(history, [target])] = -np.inf
            recommended[name] = [titles[item] for item in np.argsort(-row, kind="stable")[:TOP_K]]
            ranks[name] = int((row > row[target]).sum()) + 1
        cases.append(
            {
                "rule": RULES[rule],
                "count": len(matching),
                "user": int(users[place]) + 1,
                "history": [titles[item] for item in history[-HISTORY_LENGTH:]],
                "target": titles[target],
                "recommended": recommended,
                "ranks": ranks,
            }
        )
    return cases


def _by_rule(table: MetricTable) -> dict[str, Bool[np.ndarray, "users"]]:
    at = {name: METRICS.index(name) for name in ("hr@1", "hr@10")}
    student, teacher = (
        table[name]["sampled"][:, at["hr@1"]] == 1 for name in ("student", "teacher")
    )
    missed = [table[name]["sampled"][:, at["hr@10"]] == 0 for name in ("student", "teacher")]
    return {
        "student": student & ~teacher,
        "both": student & teacher,
        "teacher": teacher & ~student,
        "none": missed[0] & missed[1],
    }
