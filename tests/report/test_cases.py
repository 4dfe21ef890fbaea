"""Who is shown, and what of them."""

import numpy as np

from llmsrec.data.sequences import Sequences
from llmsrec.data.splits import Splits
from llmsrec.evaluation.per_user import METRICS
from llmsrec.report.cases import RULES, select_cases


class Fixed:
    """Every user gets the same scores; the padding would win."""

    def __init__(self, scores: list[float]) -> None:
        self.scores = np.array(scores, dtype=np.float32)

    def score(self, histories: Sequences) -> np.ndarray:
        return np.broadcast_to(self.scores, (len(histories), len(self.scores)))


def test_the_first_user_of_each_rule_with_the_best_three_of_what_was_not_bought(
    markov_splits: Splits,
) -> None:
    """Item 1 scores best, then 2, and so on. Users 3, 5 and 7 on are the first of their rule."""
    first, in_ten = METRICS.index("hr@1"), METRICS.index("hr@10")
    table = {name: {"sampled": np.zeros((300, len(METRICS)))} for name in ("student", "teacher")}
    for name in table:
        table[name]["sampled"][:6, in_ten] = 1
    table["student"]["sampled"][[2, 4], first] = 1
    table["teacher"]["sampled"][[4], first] = 1
    ranker = Fixed([99.0, *range(40, 0, -1)])
    cases = select_cases({"teacher": ranker}, markov_splits, table)
    found = [(case["rule"], case["user"], case["count"]) for case in cases]
    assert found == [(RULES["student"], 3, 1), (RULES["both"], 5, 1), (RULES["none"], 7, 294)]
    titles = markov_splits.catalog.titles
    for case in cases:
        row = case["user"] - 1
        bought = markov_splits.histories("test")[row].tolist()
        target = int(markov_splits.candidates["test"].targets[row])
        unseen = [item for item in range(1, 41) if item not in bought]
        assert case["history"] == [titles[item] for item in bought[-6:]]
        assert case["target"] == titles[target]
        assert case["recommended"]["teacher"] == [titles[item] for item in unseen[:3]]
        assert case["ranks"]["teacher"] == unseen.index(target) + 1
    assert ranker.scores[0] == 99  # the model's own scores are left alone
