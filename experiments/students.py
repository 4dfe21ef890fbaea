"""Does the student beat its own teacher, does it read order, and what does each of its parts bring?

    python -m experiments.students --dataset Video_Games --variants full no_uniformity neither --seeds 0 1 2 3 4

answers SPEC E4 and E7, and with these variants E9; with `user_vector` E13, `contrastive` E14, `last_item` E15, and with
`--train-order shuffled` E2: teacher and students of permuted histories, evaluated as ever; by `--backbone small-2x`
E11, another language model (`python -m llmsrec.stages.build_backbone --out artifacts/<dataset>/small-2x ...` makes it).

It reads artifacts/<dataset>/{splits,backbone}; trains, for each seed, a teacher and every variant of its student (what
is not yet under scratch/students), ranks the test users with true and with shuffled histories, and shows means over
seeds with 95% intervals over users. Settings are those of params.yaml; `--set learning_rate=0.001` changes one of the
student's. `--part valid` is for choosing settings. The table is written to scratch/students/<dataset>/<part>.csv.
"""

import argparse
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from safetensors.numpy import load_file, save_file

from experiments.trained import PARAMS, ShuffledTraining, device, settings, student_of, teacher_of
from llmsrec.config import load_section, read_section
from llmsrec.data.splits import Part, Splits
from llmsrec.evaluation.bootstrap import interval, resampled_means
from llmsrec.evaluation.groups import by_target
from llmsrec.evaluation.protocol import evaluate
from llmsrec.evaluation.ranker import Ranker
from llmsrec.evaluation.results import (
    METRICS,
    PROTOCOLS,
    EvaluationConfig,
    per_user,
    shuffled_histories,
)
from llmsrec.files import whole_file, whole_folder
from llmsrec.student.backbone import Backbone, load_backbone
from llmsrec.student.ranker import StudentRanker, encode_items
from llmsrec.teacher.ranker import TeacherRanker

FOUND = Path("scratch/students")
VARIANTS: dict[str, dict[str, Any]] = {  # table 8, from its last row to its first
    "full": {},
    "no_uniformity": {"w_uni": 0.0},
    "neither": {"w_uni": 0.0, "w_dis": 0.0},
    "contrastive": {"distill": "contrastive"},  # table 12
    "user_vector": {"with_user_rep": True},  # table 11
    "last_item": {"examples": "last_item"},  # figure 7, of which `full` is the other half
}
SHUFFLE_SEED = 0  # of training histories
SHOWN = ("ndcg@10", "hr@10")

Values = dict[str, Float[np.ndarray, "users metrics"]]  # of true_sampled, shuffled_full, ...
Columns = dict[
    tuple[str, str], Float[np.ndarray, "seeds users"]
]  # of a model, or of one less another


class Study:
    """One store; every model is trained and ranked once."""

    def __init__(
        self, dataset: str, part: Part, changes: dict[str, Any], train_order: str, backbone: str
    ) -> None:
        self.dataset, self.part, self.changes = dataset, part, changes
        artifacts = Path("artifacts") / dataset
        self.splits = Splits.load(artifacts / "splits")
        shuffled = train_order == "shuffled"
        self.taught = ShuffledTraining.of(self.splits, SHUFFLE_SEED) if shuffled else self.splits
        self.backbone: Backbone = load_backbone(artifacts / backbone, device())
        self.evaluation = load_section(EvaluationConfig, "evaluation")
        self.folder = FOUND / dataset

    def of_seed(self, seed: int, variants: list[str]) -> dict[str, Values]:
        """The values of the teacher of this seed, and of each variant of its student."""
        values = read_section("teacher", PARAMS) | {"seed": seed}
        teacher = teacher_of(values, self.taught, self.folder, name="teacher", where=str(PARAMS))
        found = {"teacher": self._values(TeacherRanker(teacher))}
        for variant in variants:
            changes = self.changes | VARIANTS[variant] | {"seed": seed}
            model, own = student_of(
                changes, self.taught, teacher, self.backbone, self.folder, name=variant
            )
            kept = own / f"{self.part}-{self.evaluation.shuffles}-{self.evaluation.seed}"
            if not kept.exists():
                ranker = StudentRanker(model, encode_items(model, self.splits.num_items))
                with whole_folder(kept) as aside:
                    save_file(self._values(ranker), aside / "values.safetensors")
            found[variant] = load_file(kept / "values.safetensors")
        return found

    def _values(self, ranker: Ranker) -> Values:
        held = self.evaluation.scores_mb
        true = evaluate(ranker, self.splits, self.part, scores_mb=held)
        runs = [
            evaluate(ranker, self.splits, self.part, histories=histories, scores_mb=held)
            for histories in shuffled_histories(self.splits, self.part, self.evaluation)
        ]
        values = {}
        for protocol in PROTOCOLS:
            values[f"true_{protocol}"] = per_user(getattr(true, protocol))
            values[f"shuffled_{protocol}"] = np.mean(
                [per_user(getattr(run, protocol)) for run in runs], axis=0
            )
        return values


@dataclass(frozen=True)
class Row:
    """A number of the table: a model's mean over seeds and users, or how far it is from that of `minus`."""

    dataset: str
    model: str
    minus: str
    group: str
    protocol: str
    metric: str
    value: float
    low: float
    high: float
    lowest_seed: float
    highest_seed: float
    seeds: int
    users: int


def tidy(study: Study, seeds: list[dict[str, Values]]) -> list[Row]:
    everyone = np.ones(len(study.splits.candidates[study.part]), dtype=bool)
    groups = {"all": everyone, **by_target(study.splits, study.part)}
    return [
        row
        for group, chosen in groups.items()
        if chosen.any()
        for protocol in PROTOCOLS
        for metric in SHOWN
        for row in _rows(study, _compared(seeds, protocol, metric, chosen), group, protocol, metric)
    ]


def _compared(
    seeds: list[dict[str, Values]], protocol: str, metric: str, chosen: Bool[np.ndarray, "users"]
) -> Columns:
    """Each model with true and shuffled histories, what shuffling costs it, and each less the one before."""
    columns: Columns = {}
    at = METRICS.index(metric)

    def values(model: str, order: str) -> Float[np.ndarray, "seeds users"]:
        return np.stack([found[model][f"{order}_{protocol}"][chosen, at] for found in seeds])

    before = ""
    for model in seeds[0]:
        true, shuffled = values(model, "true"), values(model, "shuffled")
        columns[model, ""] = true
        columns[f"{model}_shuffled", ""] = shuffled
        columns[f"{model}_shuffled", model] = shuffled - true
        if before:
            columns[model, before] = true - columns[before, ""]
        before = model
    return columns


def _rows(study: Study, columns: Columns, group: str, protocol: str, metric: str) -> Iterator[Row]:
    means = np.stack([values.mean(axis=0) for values in columns.values()], axis=1)
    resampled = resampled_means(means, study.evaluation.bootstrap, study.evaluation.seed)
    for number, ((model, minus), values) in enumerate(columns.items()):
        found = interval(float(means[:, number].mean()), resampled[:, number])
        seeds = values.mean(axis=1)
        yield Row(
            study.dataset, model, minus, group, protocol, metric, found.value, found.low, found.high,
            float(seeds.min()), float(seeds.max()), len(values), values.shape[1],
        )  # fmt: skip


def show(rows: list[Row], title: str) -> None:
    """NDCG@10 of every model; then what shuffling costs each, and what each is above the one before, in percent."""
    shown = [row for row in rows if row.metric == "ndcg@10"]
    found = {(row.group, row.model, row.minus, row.protocol): row for row in shown}
    console = Console(markup=False, highlight=False)
    for differences in (False, True):
        table = Table(title=None if differences else title, box=SIMPLE, title_justify="left")
        table.add_column("difference, percent" if differences else "NDCG@10", no_wrap=True)
        for protocol in PROTOCOLS:
            table.add_column(protocol, justify="right", no_wrap=True)
        before = ""
        for group, model, minus in dict.fromkeys(
            (row.group, row.model, row.minus) for row in shown
        ):
            if bool(minus) is not differences:
                continue
            pair = [found[group, model, minus, protocol] for protocol in PROTOCOLS]
            if group != before:
                table.add_section()
                table.add_row(f"{group}, {pair[0].users:,} users")
            before, name = group, model.replace("_shuffled", ", shuffled")
            if not minus:
                table.add_row(f"  {name}", *map(_plain, pair))
                continue
            bases = [found[group, minus, "", protocol].value for protocol in PROTOCOLS]
            over = "" if model == f"{minus}_shuffled" else f" over {minus}"
            table.add_row(f"  {name}{over}", *map(_percent, pair, bases))
        console.print(table)


def _plain(row: Row) -> str:
    return f"{row.value:.4f} [{row.low:.3f}, {row.high:.3f}]"


def _percent(row: Row, base: float) -> str:
    value, low, high = (100 * part / base for part in (row.value, row.low, row.high))
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", required=True, help="whose artifacts are read")
    parser.add_argument("--variants", nargs="+", default=["full"], choices=VARIANTS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--train-order", default="true", choices=("true", "shuffled"))
    parser.add_argument("--backbone", default="backbone", help="a folder beside the splits")
    parser.add_argument("--part", default="test", choices=("valid", "test"))
    parser.add_argument("--set", nargs="*", default=[], dest="changes", metavar="KEY=VALUE")
    args = parser.parse_args()
    study = Study(args.dataset, args.part, settings(args.changes), args.train_order, args.backbone)
    seeds = [study.of_seed(seed, args.variants) for seed in args.seeds]
    rows = tidy(study, seeds)
    unlike = ["shuffled-training"] * (args.train_order == "shuffled")
    unlike += [args.backbone] * (args.backbone != "backbone")
    name = "-".join([args.part, *unlike])
    with whole_file(study.folder / f"{name}.csv") as aside:
        pd.DataFrame([asdict(row) for row in rows]).to_csv(aside, index=False)
    show(rows, f"{args.dataset}, {args.part}, mean of {len(seeds)} seeds")


if __name__ == "__main__":
    main()
