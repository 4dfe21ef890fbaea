"""Whose next purchase does the student rank first alone, whose do both, whose its teacher? By rule, not by hand (E12).

    python -m experiments case_study --dataset sample

reads the trained store under artifacts/<dataset>. Every test user whose next purchase one of the two ranks first among
the 100 stored candidates stands in reports/experiments/case_study/<dataset>.csv: the history, what each model ranks
first, and the truth, by their titles.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int

from experiments.commands import parser_of, save
from llmsrec.data.splits import Splits
from llmsrec.ranking.metrics import hit_rate
from llmsrec.ranking.protocol import rank_candidates
from llmsrec.ranking.ranker import VectorRanker
from llmsrec.sequential.ranker import SequentialRanker
from llmsrec.serving.recommender import Recommender
from llmsrec.training.distributed import default_device

SHOWN = 10  # purchases of a history


def firsts(
    ranker: VectorRanker, splits: Splits
) -> tuple[Int[np.ndarray, "users"], Bool[np.ndarray, "users"]]:
    """What is ranked first of each test user's candidates, and whether the target is, alone."""
    candidates = splits.candidates["test"]
    scores = ranker.score_candidates(
        ranker.user_vectors(splits.histories("test")), candidates.items
    )
    rows = np.arange(len(candidates))
    best = candidates.items[rows, scores.argmax(axis=1)]
    return best, hit_rate(rank_candidates(scores, candidates), 1) == 1


def cases(splits: Splits, teacher: VectorRanker, student: VectorRanker) -> pd.DataFrame:
    of_teacher, teacher_right = firsts(teacher, splits)
    of_student, student_right = firsts(student, splits)
    rules = {
        "student alone": student_right & ~teacher_right,
        "both": student_right & teacher_right,
        "teacher alone": teacher_right & ~student_right,
    }
    histories, titles = splits.histories("test"), splits.catalog.titles
    users, targets = splits.evaluated("test").users, splits.candidates["test"].targets
    rows = [
        {
            "ranked_first_by": rule,
            "user": splits.user_ids[users[row]],
            "history": " | ".join(titles[item] for item in histories[int(row)][-SHOWN:]),
            "student_first": titles[of_student[row]],
            "teacher_first": titles[of_teacher[row]],
            "next_purchase": titles[targets[row]],
        }
        for rule, chosen in rules.items()
        for row in np.flatnonzero(chosen)
    ]
    return pd.DataFrame(rows)


def main(argv: list[str]) -> None:
    parser = parser_of("case_study", __doc__)
    parser.add_argument("--dataset", required=True)
    dataset = parser.parse_args(argv).dataset
    folder = Path("artifacts") / dataset
    splits, student = (
        Splits.load(folder / "splits"),
        Recommender.load(folder, default_device()).ranker,
    )
    found = cases(splits, SequentialRanker(student.model.teacher), student)
    print(f"{dataset}: {len(splits.candidates['test']):,} test users, 100 candidates each")
    for rule, some in found.groupby("ranked_first_by", sort=False):
        first = some.iloc[0]
        print(f"\n{len(some):,} users: ranked first by {rule}. The first of them, {first['user']}:")
        for column in ("history", "student_first", "teacher_first", "next_purchase"):
            print(f"  {column.replace('_', ' '):14} {first[column]}")
    save(found, "case_study", dataset)
