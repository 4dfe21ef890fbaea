"""Diagnostics beside the main table: use of order, and quality by group of users."""

from typing import Any

import numpy as np

from llmsrec.data.splits import Splits
from llmsrec.evaluation.bootstrap import interval, resampled_means
from llmsrec.evaluation.per_user import (
    METRICS,
    PROTOCOLS,
    EvaluationConfig,
    MetricTable,
    UserMetrics,
)
from llmsrec.report.groups import all_groups, tied_at_median

METRIC = "ndcg@10"


def sequence_diagnostics(
    metrics: UserMetrics, splits: Splits, config: EvaluationConfig
) -> dict[str, Any]:
    """Similarity of shuffled representations, and ties at the median (specification E5, E6)."""
    return {
        "similarity": _similarities(metrics, config),
        "tied_at_median": tied_at_median(splits, "test"),
    }


def metrics_by_group(
    table: MetricTable, splits: Splits, config: EvaluationConfig
) -> list[dict[str, Any]]:
    """A row with NDCG@10 of each system in each non-empty group of test users (specification E6, E7)."""
    keys = [(system, protocol) for system in table for protocol in PROTOCOLS]
    at = METRICS.index(METRIC)
    users = splits.evaluated("test").users
    values = np.column_stack([table[system][protocol][:, at] for system, protocol in keys])
    rows = []
    for family, groups in all_groups(splits, "test").items():
        for group, mask in groups.items():
            of_group = values[mask]
            if not len(of_group):
                continue
            resampled = resampled_means(of_group, config.bootstrap, config.seed, users[mask])
            for place, (system, protocol) in enumerate(keys):
                mean = interval(float(of_group[:, place].mean()), resampled[:, place])
                rows.append(
                    {"family": family, "group": group, "system": system, "protocol": protocol,
                     "metric": METRIC, **mean.as_dict(), "users": len(np.unique(users[mask]))}
                )  # fmt: skip
    return rows


def _similarities(metrics: UserMetrics, config: EvaluationConfig) -> dict[str, dict[str, float]]:
    summary = {}
    for name, values in metrics.similarity.items():
        means = resampled_means(
            values[:, None], config.bootstrap, config.seed, metrics.user_indices
        )
        summary[name] = interval(float(values.mean()), means[:, 0]).as_dict()
    return summary
