"""The test users whose next purchase the student alone, its teacher alone, or both rank first (specification E12).

    python -m studies case_study --dataset sample

reads the trained models under artifacts/<dataset>. Every test user whose next purchase one of the two ranks first among
the stored candidates is a row of reports/studies/case_study/<dataset>.csv: the history, the first item of each model,
and the next purchase, by their titles.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int

from llmsrec.core.names import name_option
from llmsrec.data.splits import Splits
from llmsrec.ranking.metrics import hit_rate
from llmsrec.ranking.protocol import rank_candidates
from llmsrec.ranking.ranker import VectorRanker
from llmsrec.serving.recommender import Recommender
from llmsrec.training.distributed import default_device
from studies.commands import parser_of, save

SHOWN = 10  # last purchases of a history


def firsts(
    ranker: VectorRanker, splits: Splits
) -> tuple[Int[np.ndarray, "users"], Bool[np.ndarray, "users"]]:
    """The first of each test user's candidates, and whether it is the target (without a tie)."""
    candidates = splits.candidates["test"]
    scores = ranker.score_candidates(
        ranker.user_vectors(splits.histories("test")), candidates.items
    )
    rows = np.arange(len(candidates))
    best = candidates.items[rows, scores.argmax(axis=1)]
    return best, hit_rate(rank_candidates(scores, candidates), 1) == 1


def cases(splits: Splits, teacher: VectorRanker, student: VectorRanker) -> pd.DataFrame:
    """A row for each user whose next purchase at least one of the models ranks first."""
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
        for rule, mask in rules.items()
        for row in np.flatnonzero(mask)
    ]
    return pd.DataFrame(rows)


def main(argv: list[str]) -> None:
    """The command `python -m studies case_study`."""
    parser = parser_of("case_study", __doc__)
    parser.add_argument("--dataset", type=name_option, required=True)
    dataset = parser.parse_args(argv).dataset
    folder = Path("artifacts") / dataset
    splits, parts = (
        Splits.load(folder / "splits"),
        Recommender.load(folder, default_device()).parts,
    )
    table = cases(splits, parts.teacher, parts.student)
    print(f"{dataset}: {len(splits.candidates['test']):,} test users")
    for rule, rows in table.groupby("ranked_first_by", sort=False):
        first = rows.iloc[0]
        print(f"\n{len(rows):,} users: ranked first by {rule}. The first, {first['user']}:")
        for column in ("history", "student_first", "teacher_first", "next_purchase"):
            print(f"  {column.replace('_', ' '):14} {first[column]}")
    save(table, "case_study", dataset)
