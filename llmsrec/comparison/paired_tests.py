"""Who differs from whom: paired bootstrap over the same users, corrected by Holm for all looks of a family (SPEC 9).

A p value is no smaller than 2 / (resamples + 1), so a family of many pairs needs many resamples. Seeds are averaged
before: what is tested is these trainings on other users, not other trainings."""

from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from jaxtyping import Float

from llmsrec.comparison.tidy import CHANCE, Cell, Resampled
from llmsrec.evaluation.bootstrap import holm, interval, two_sided_p

TOLD = (("sampled", "ndcg@10"), ("full", "ndcg@10"), ("generation", "hr@1"))

Family = Literal["reference", "pairs", "shuffled_training", "shuffled_inference"]


@dataclass(frozen=True)
class Difference:
    """How far `system` is above `against`: plain, and as a share of it in percent."""

    dataset: str
    family: Family
    protocol: str
    metric: str
    system: str
    mode: str
    train: str
    test: str
    against: str
    against_mode: str
    against_train: str
    against_test: str
    difference: float
    low: float
    high: float
    change: float | None  # percent; nothing over 0
    change_low: float | None
    change_high: float | None
    p: float
    p_holm: float
    different: bool  # p_holm is below alpha
    users: int
    seeds: int


def differences(
    dataset: str, drawn: Resampled, reference: str, *, all_pairs: bool, alpha: float
) -> list[Difference]:
    tests: list[Difference] = []
    for protocol, metric in TOLD:
        told = [c for c in drawn.columns if (c.protocol, c.metric) == (protocol, metric)]
        told = [cell for cell in told if cell.system != CHANCE]
        for family, pairs in _families(told, reference, all_pairs).items():
            if pairs:
                tests += _tested(dataset, family, pairs, drawn, alpha)
    return tests


def _families(
    told: list[Cell], reference: str, all_pairs: bool
) -> dict[Family, list[tuple[Cell, Cell]]]:
    """Each system against the reference, of its own mode where the reference has that; against each; and by order."""
    plain = [cell for cell in told if cell.train == cell.test == "original"]
    bases = {cell.mode: cell for cell in plain if cell.system == reference}
    known = set(told)
    families: dict[Family, list[tuple[Cell, Cell]]] = {
        "reference": [
            (cell, bases.get(cell.mode) or next(iter(bases.values())))
            for cell in plain
            if bases and cell.system != reference
        ],
        "pairs": list(combinations(plain, 2)) if all_pairs else [],
    }
    taught = [(cell._replace(train="shuffled"), cell) for cell in plain]
    asked = [(cell._replace(test="shuffled"), cell) for cell in plain]
    families["shuffled_training"] = [pair for pair in taught if pair[0] in known]
    families["shuffled_inference"] = [pair for pair in asked if pair[0] in known]
    return families


def _tested(
    dataset: str, family: Family, pairs: list[tuple[Cell, Cell]], drawn: Resampled, alpha: float
) -> list[Difference]:
    # a difference is resampled as a column of its own: that of equal systems is 0, whatever a product rounds
    gaps = np.stack([drawn.means[first] - drawn.means[second] for first, second in pairs], axis=1)
    resampled = drawn.draw(gaps)
    p = np.array([two_sided_p(column) for column in resampled.T])
    tests = []
    rows = zip(pairs, gaps.mean(axis=0), resampled.T, p, holm(p), strict=True)
    for (first, second), gap, column, plain, corrected in rows:
        found = interval(float(gap), column)
        base = float(drawn.means[second].mean())
        change = _change(float(gap), column, base, drawn.of(second))
        seeds, users = drawn.columns[first].shape
        tests.append(
            Difference(
                dataset, family, first.protocol, first.metric, first.system, first.mode, first.train, first.test,
                second.system, second.mode, second.train, second.test, found.value, found.low, found.high,
                *change, float(plain), float(corrected), bool(corrected < alpha), users, seeds,
            )
        )  # fmt: skip
    return tests


def _change(
    gap: float, gaps: Float[np.ndarray, "n"], base: float, bases: Float[np.ndarray, "n"]
) -> tuple[float | None, float | None, float | None]:
    """Percent, with the interval of the ratio: both of its parts are drawn anew."""
    if base <= 0 or (bases <= 0).any():
        return None, None, None
    found = interval(gap / base, gaps / bases)
    return 100 * found.value, 100 * found.low, 100 * found.high
