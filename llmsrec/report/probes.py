"""Does a model understand sequence, and for whom does it work? Rows beside the main table."""

from typing import Any

import numpy as np

from llmsrec.data.splits import Splits
from llmsrec.evaluation.bootstrap import interval, resampled_means
from llmsrec.evaluation.per_user import METRICS, PROTOCOLS, EvaluationConfig, Found, Table
from llmsrec.report.groups import all_groups, tied_at_the_cut

METRIC = "ndcg@10"


def probe(found: Found, splits: Splits, config: EvaluationConfig) -> dict[str, Any]:
    """How alike shuffled representations are (SPEC E5), and how sharp the cut of E6 is."""
    return {
        "similarity": _similarities(found, config),
        "tied_at_the_cut": tied_at_the_cut(splits, "test"),
    }


def by_group(table: Table, splits: Splits, config: EvaluationConfig) -> list[dict[str, Any]]:
    """NDCG@10 of each system in each group of test users, a row each; empty groups have none (SPEC E6, E7)."""
    keys = [(system, protocol) for system in table for protocol in PROTOCOLS]
    at = METRICS.index(METRIC)
    values = np.column_stack([table[system][protocol][:, at] for system, protocol in keys])
    rows = []
    for family, groups in all_groups(splits, "test").items():
        for group, chosen in groups.items():
            some = values[chosen]
            if not len(some):
                continue
            resampled = resampled_means(some, config.bootstrap, config.seed)
            for place, (system, protocol) in enumerate(keys):
                mean = interval(float(some[:, place].mean()), resampled[:, place])
                rows.append(
                    {"family": family, "group": group, "system": system, "protocol": protocol,
                     "metric": METRIC, **mean.as_dict(), "users": len(some)}
                )  # fmt: skip
    return rows


def _similarities(found: Found, config: EvaluationConfig) -> dict[str, dict[str, float]]:
    summary = {}
    for name, values in found.similarity.items():
        means = resampled_means(values[:, None], config.bootstrap, config.seed)
        summary[name] = interval(float(values.mean()), means[:, 0]).as_dict()
    return summary
