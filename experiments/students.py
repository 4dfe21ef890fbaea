"""Students of several seeds against their own teachers and against each other (SPEC E1, E2, E4-E7, E9, E11, E13-E15).

    python -m experiments ablation --dataset Video_Games --seeds 0 1 2 3 4

reads artifacts/<dataset>/{splits,backbone}; trains, for each seed, a teacher and the students that are not yet under
scratch/students; ranks the test users with true and with shuffled histories; shows means over seeds with 95% intervals
over users; and writes the tidy table reports/experiments/<experiment>/<dataset>.csv. Settings are those of params.yaml;
`--set learning_rate=0.001` changes one of the student's. `--part valid` is for choosing settings.

Another language model for `backbone_size` is made by `python -m llmsrec.stages.build_backbone --out
artifacts/<dataset>/large ...`, and named by `--backbones large`.
"""

from dataclasses import dataclass

from experiments.commands import parser_of, save
from experiments.study import FULL, TEACHER, Arm, Study
from experiments.tables import Cell, Published, Row, show, tidy
from experiments.trained import settings
from llmsrec.comparison.published import paper_table, published_in
from llmsrec.comparison.tidy import frame

TABLE_8 = {"neither": "w/o distill,uniform", "no_uniformity": "w/o uniform", FULL: "full"}


@dataclass(frozen=True)
class Experiment:
    """Which students are trained for it, on which orders of the histories, and which of the paper's tables has it."""

    summary: str
    table: str
    variants: tuple[str, ...] = (FULL,)
    train: tuple[str, ...] = ("original",)

    def arms(self, train: list[str], backbones: list[str]) -> list[Arm]:
        """Teachers first, and what others are set against before them."""
        orders = [order for order in self.train if order in train]
        return [
            Arm(variant, order, backbone)  # type: ignore[arg-type]
            for backbone in ("backbone", *backbones)
            for order in orders
            for variant in (TEACHER, *self.variants)
            if variant != TEACHER or backbone == "backbone"
        ]


EXPERIMENTS = {
    "overall": Experiment("E1, E4-E7: student and teacher, by order and groups of users", "Table6"),
    "shuffled_training": Experiment(
        "E2: taught on shuffled histories", "Table3", train=("original", "shuffled")
    ),
    "ablation": Experiment(
        "E9: what each loss brings",
        "Table8",
        (FULL, "no_uniformity", "neither"),
        ("original", "shuffled"),
    ),
    "backbone_size": Experiment("E11: another language model", "Fig5"),
    "user_vector": Experiment("E13: the teacher's user in the prompt", "Table11", (FULL, "user_vector")),
    "contrastive": Experiment("E14: contrastive distillation", "Table12", (FULL, "contrastive")),
    "auto_regressive": Experiment(
        "E15: taught at every purchase or at the last",
        "Fig7",
        ("auto_regressive", "last_item"),
        ("original", "shuffled"),
    ),
}  # fmt: skip


def tokens(experiment: str, cell: Cell, group: str, metric: str) -> tuple[str, set[str]] | None:
    """The table of the paper that has this cell, and what its variant says there; None where there is none."""
    arm, test = cell.arm, cell.test
    plain = arm in (Arm(TEACHER), Arm(FULL))
    if metric == "cosine":
        return ("Table5", {"train=original"}) if plain else None
    if group != "all":
        figure = "Fig4" if group in ("warm", "cold") else "Fig3"
        return (figure, {f"subset={group}"}) if plain and test == "original" else None
    table, shuffled = EXPERIMENTS[experiment].table, test == "shuffled"
    if experiment == "overall":
        return ("Fig1b", {"inference=shuffled"}) if shuffled else (table, {"test=original"})
    if experiment == "contrastive":
        loss = "contrastive" if arm.variant == "contrastive" else "mse"
        return table, {f"distill={loss}", f"inference={test}"}
    if experiment == "auto_regressive":
        if shuffled and arm.variant == "last_item":
            return None
        kind = "auto-regressive-shuffle" if shuffled else arm.variant.replace("_", "-")
        return (table, {f"training={kind}"}) if arm.train == "original" else None
    if shuffled or experiment == "backbone_size":  # only the paper's own models have a place there
        return None
    if experiment == "shuffled_training":
        return table, {f"train={arm.train}"}
    if experiment == "ablation":
        return table, {f"ablation={TABLE_8.get(arm.variant, arm.variant)}", f"train={arm.train}"}
    return table, {f"prompt={'default' if arm.variant == FULL else 'with_user_representation'}"}


def in_paper(experiment: str, dataset: str) -> Published:
    paper = paper_table()

    def value(cell: Cell, group: str, metric: str) -> float | None:
        place = tokens(experiment, cell, group, metric)
        if place is None:
            return None
        model = "SASRec" if cell.arm.variant == TEACHER else "LLM-SRec"
        name = "cosine_similarity" if metric == "cosine" else metric
        return published_in(paper, dataset, place[0], model, name, place[1])

    return value


def main(experiment: str, argv: list[str]) -> None:
    chosen = EXPERIMENTS[experiment]
    parser = parser_of(experiment, f"{chosen.summary}.\n\n{__doc__}")
    parser.add_argument("--dataset", required=True, help="whose artifacts are read")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    if len(chosen.train) > 1:
        parser.add_argument("--train", nargs="+", default=chosen.train, choices=chosen.train)
    if experiment == "backbone_size":
        parser.add_argument(
            "--backbones", nargs="+", required=True, help="folders beside the splits"
        )
    parser.add_argument("--part", default="test", choices=("valid", "test"))
    parser.add_argument("--set", nargs="*", default=[], dest="changes", metavar="KEY=VALUE")
    args = vars(parser.parse_args(argv))
    arms = chosen.arms(args.get("train", ["original"]), args.get("backbones", []))
    study = Study(args["dataset"], args["part"], settings(args["changes"]))
    seeds = [study.of_seed(seed, arms) for seed in args["seeds"]]
    rows = tidy(study, seeds, in_paper(experiment, study.dataset))
    name = study.dataset if study.part == "test" else f"{study.dataset}-{study.part}"
    show(
        rows,
        f"{experiment}, {study.dataset}, {study.part}, seeds {', '.join(map(str, args['seeds']))}",
    )
    save(frame(Row, rows), experiment, name)
