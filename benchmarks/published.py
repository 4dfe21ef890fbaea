"""SASRec, gSASRec and eSASRec at the settings of eSASRec's authors, on the files and by the protocol of their table.

The data are the pre-processed Amazon 2014 sequences of S3-Rec. Leave-one-out; the target is ranked among all items that
the user has not bought; the history at test is train and valid. A training takes hours on a CPU. It is saved after each
epoch, and the same command continues it; `--report` prints what has been reached and trains nothing.
"""

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.figures import Figure
from llmsrec.core.errors import DataError
from llmsrec.data.catalog import COLUMNS, Catalog
from llmsrec.data.sequences import Sequences
from llmsrec.data.splits import Candidates, Part, Splits, Targets
from llmsrec.ranking.metrics import hit_rate, ndcg
from llmsrec.ranking.protocol import evaluate
from llmsrec.sequential.ranker import SequentialRanker
from llmsrec.sequential.sasrec import SASRec
from llmsrec.sequential.trainer import TeacherConfig, train_teacher
from llmsrec.training.checkpoints import Checkpoints, fingerprint
from llmsrec.training.loop import MetricLog

SASREC = TeacherConfig(
    embedding_size=64, num_blocks=1, num_heads=1, dropout=0.2, norm="original", layers="standard", ligr_multiplier=1,
    max_length=50, loss="sampled_softmax", negatives=256, gbce_t=0.75, holdout=False, epochs=200, batch_size=128,
    learning_rate=0.001, sampling="shuffle", keep_best=True, validate_every=1, validation_users=None,
    validation_ranking="full", patience=50, seed=0,
)  # fmt: skip
SYSTEMS = {
    "sasrec": SASREC,
    "gsasrec": replace(SASREC, loss="gbce"),
    "esasrec": replace(SASREC, layers="ligr", norm="pre"),
}
LIGR_MULTIPLIERS = {"Toys": 1, "Sports": 2}
# NDCG@10 and Recall@10 of SASRec with sampled softmax and of eSASRec: the README of eSASRec's repository
PUBLISHED = {
    ("Toys", "sasrec"): (0.0580, 0.0970),
    ("Toys", "esasrec"): (0.0538, 0.0939),
    ("Sports", "sasrec"): (0.0314, 0.0569),
    ("Sports", "esasrec"): (0.0323, 0.0560),
}
GOAL = 0.95
MODEL, STATE, CURVE = "model", "state", "curve.json"


@dataclass(frozen=True)
class Reached:
    """What a training has reached: its best epoch and that epoch's metrics on test."""

    epochs: int
    best_epoch: int
    finished: bool
    ndcg: float
    recall: float


def read_splits(file: Path) -> Splits:
    """Leave-one-out splits of a file `user_id,parent_asin,timestamp`; a target is its only candidate, since only the
    full ranking is used. DataError if a user has fewer than three purchases."""
    if not file.exists():
        raise DataError(f"{file} does not exist: pass the folder of the published files as --data")
    rows = pd.read_csv(file).sort_values(["user_id", "timestamp"], kind="stable")
    users, counts = np.unique(rows["user_id"], return_counts=True)
    items, indices = np.unique(rows["parent_asin"], return_inverse=True)
    if counts.min() < 3:
        raise DataError(f"{file}: user {users[counts.argmin()]} has fewer than 3 purchases")
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    sequences = Sequences(offsets, indices.astype(np.int64) + 1, rows["timestamp"].to_numpy())
    catalog = pd.DataFrame({"item_index": np.arange(1, len(items) + 1), "item_id": items})
    everyone = np.arange(len(users))
    targets: dict[Part, Targets] = {
        "valid": Targets(everyone, counts - 2),
        "test": Targets(everyone, counts - 1),
    }
    candidates = {
        part: Candidates(
            everyone,
            sequences.items[offsets[:-1] + held_out.positions][:, None],
            np.zeros(len(users), np.int64),
        )
        for part, held_out in targets.items()
    }
    return Splits(
        Catalog(catalog.reindex(columns=COLUMNS, fill_value="")),
        users.tolist(),
        sequences,
        counts - 2,
        targets,
        candidates,
        candidates,
    )


def config_of(dataset: str, system: str) -> TeacherConfig:
    """The authors' settings; those of a dataset that they do not have are those of Toys."""
    return replace(SYSTEMS[system], ligr_multiplier=LIGR_MULTIPLIERS.get(dataset, 1))


def train(splits: Splits, config: TeacherConfig, folder: Path) -> None:
    """Train into `folder`, from its last epoch if it holds one; a finished training stays as it is."""
    if (folder / MODEL).exists():
        return
    log = MetricLog(folder / CURVE)
    model = train_teacher(splits, config, log, _checkpoints(splits, config, folder))
    log.save()
    model.save(folder / MODEL)
    _checkpoints(splits, config, folder).clear()


def reached(splits: Splits, config: TeacherConfig, folder: Path) -> Reached | None:
    """The test metrics of the best epoch so far; None if no epoch has ended."""
    finished = (folder / MODEL).exists()
    if finished:
        model, rows = SASRec.load(folder / MODEL), json.loads((folder / CURVE).read_text())
    else:
        state = _checkpoints(splits, config, folder).load()
        if state is None:
            return None
        model, rows = config.build_network(splits.num_items), state["rows"]
        model.load_state_dict(state["best"])
    best = max(rows, key=lambda row: row["ndcg@10"])
    ranks = evaluate(SequentialRanker(model.eval()), splits, "test").full
    assert ranks is not None
    return Reached(
        rows[-1]["step"],
        best["step"],
        finished,
        float(ndcg(ranks, 10).mean()),
        float(hit_rate(ranks, 10).mean()),
    )


def _checkpoints(splits: Splits, config: TeacherConfig, folder: Path) -> Checkpoints:
    return Checkpoints(folder / STATE, fingerprint(config, splits.sequences.items))


def table_line(dataset: str, system: str, found: Reached | None) -> str:
    """Ours, the published values and their ratio."""
    name = f"{dataset:<8}{system:<9}"
    if found is None:
        return f"{name}not trained"
    published = PUBLISHED.get((dataset, system))
    state = "" if found.finished else f"   unfinished: {found.epochs} epochs so far"
    ours = f"{found.ndcg:.4f} / {found.recall:.4f}"
    theirs, ratio = f"{'-':<17}", f"{'-':<13}"
    if published is not None:
        theirs = f"{published[0]:.4f} / {published[1]:.4f}"
        ratio = f"{found.ndcg / published[0]:.3f} / {found.recall / published[1]:.3f}"
    return f"{name}{ours}   {theirs}   {ratio}   epoch {found.best_epoch}{state}"


def figures(dataset: str, system: str, found: Reached) -> list[Figure]:
    """Ours over the published values; none for a system or dataset that is not published."""
    published = PUBLISHED.get((dataset, system), ())
    ours = zip(("ndcg@10", "recall@10"), (found.ndcg, found.recall), published, strict=False)
    return [
        Figure(f"{dataset} {system} {name}", value / theirs, GOAL) for name, value, theirs in ours
    ]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", type=Path, required=True, help="folder of <dataset>_published.csv.gz"
    )
    parser.add_argument("--dataset", nargs="+", default=list(LIGR_MULTIPLIERS))
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--scratch", type=Path, default=Path("artifacts/published"))
    parser.add_argument("--report", action="store_true", help="train nothing")
    args = parser.parse_args(argv)
    lines, found_figures = [], []
    for dataset in args.dataset:
        splits = read_splits(args.data / f"{dataset}_published.csv.gz")
        for system in args.systems:
            config, folder = config_of(dataset, system), args.scratch / dataset / system
            if not args.report:
                train(splits, config, folder)
            found = reached(splits, config, folder)
            lines.append(table_line(dataset, system, found))
            found_figures += figures(dataset, system, found) if found else []
    print("full ranking    ours: NDCG@10 / Recall@10   published   ratio")
    print("\n".join(lines))
    for figure in found_figures:
        print(figure.line())


if __name__ == "__main__":
    main()
