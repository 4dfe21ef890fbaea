"""Case studies chosen by rule, never by hand: who alone ranks the target first (SPEC E12)."""

from typing import Any

import numpy as np
from jaxtyping import Bool

from llmsrec.data.splits import Splits
from llmsrec.evaluation.per_user import METRICS, Table
from llmsrec.ranking.ranker import Ranker

RULES = {
    "student": "only the student ranks the next purchase first",
    "both": "student and teacher both rank it first",
    "teacher": "only the teacher ranks it first",
    "none": "neither has it among its first ten",
}
LAST = 6  # purchases shown
BEST = 3  # recommendations shown


def pick_cases(rankers: dict[str, Ranker], splits: Splits, table: Table) -> list[dict[str, Any]]:
    """The first test user of each rule, among the stored candidates, with the number of its like."""
    found = {
        rule: np.flatnonzero(chosen) for rule, chosen in _by_rule(table).items() if chosen.any()
    }
    rows = np.array([some[0] for some in found.values()], dtype=np.int64)
    histories, users = splits.histories("test").take(rows), splits.evaluated("test").users[rows]
    targets, titles = splits.candidates["test"].targets[rows], splits.catalog.titles
    scores = {name: np.array(ranker.score(histories)) for name, ranker in rankers.items()}
    cases = []
    for place, (rule, some) in enumerate(found.items()):
        seen, target = histories[place], int(targets[place])
        recommended, ranks = {}, {}
        for name, matrix in scores.items():
            own = matrix[place]
            own[0] = -np.inf
            own[np.setdiff1d(seen, [target])] = -np.inf
            recommended[name] = [titles[item] for item in np.argsort(-own, kind="stable")[:BEST]]
            ranks[name] = int((own > own[target]).sum()) + 1
        cases.append(
            {
                "rule": RULES[rule],
                "count": len(some),
                "user": int(users[place]) + 1,
                "history": [titles[item] for item in seen[-LAST:]],
                "target": titles[target],
                "recommended": recommended,
                "ranks": ranks,
            }
        )
    return cases


def _by_rule(table: Table) -> dict[str, Bool[np.ndarray, "users"]]:
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
