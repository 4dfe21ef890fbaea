"""Train and judge what is compared. What is done under the same settings, code and data is found again; a training
that was interrupted goes on; other settings of the evaluation judge anew what is trained already."""

import gc
import shutil
import sys
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch

from llmsrec.comparison.cache_keys import code_of, encoders_of, learned_from
from llmsrec.comparison.config import Arm, ComparisonConfig, Order
from llmsrec.comparison.outcomes import EvaluationTask, Outcome, evaluate_ranker, evaluate_titles
from llmsrec.comparison.shuffled import ShuffledTraining
from llmsrec.comparison.teachers import teacher_of
from llmsrec.core.config import load_section
from llmsrec.core.files import read_json, write_json
from llmsrec.core.progress import Progress
from llmsrec.data.splits import Splits
from llmsrec.evaluation.per_user import EvaluationConfig
from llmsrec.sequential.sasrec import SASRec
from llmsrec.sequential.trainer import TeacherConfig
from llmsrec.systems.registry import system_of
from llmsrec.systems.system import Answerer, System, TrainingInput
from llmsrec.systems.training import num_trained, train_system
from llmsrec.training.checkpoints import fingerprint
from llmsrec.training.distributed import default_device
from llmsrec.training.loop import Rows

VALIDATED = ("ndcg@10", "hr@10", "hr@1")  # the first that a training has is told of a last look


class Store:
    """What all systems of a dataset share, and where each leaves what it is: `systems/<system>/<training>/`."""

    def __init__(
        self,
        artifacts: Path,
        scratch: Path,
        params: Path,
        config: ComparisonConfig,
        evaluation: EvaluationConfig,
    ) -> None:
        self.artifacts, self.scratch, self.params = artifacts, scratch, params
        self.config = config
        self.splits = Splits.load(artifacts / "splits")
        self.asked = EvaluationTask(self.splits, evaluation, config.generation_users)
        self._taught: dict[Order, tuple[Splits, SASRec]] = {}

    def folder(self, arm: Arm) -> Path:
        return self.artifacts / "systems" / arm.system / arm.name

    def given(self, arm: Arm) -> TrainingInput:
        if arm.order not in self._taught:
            self._taught[arm.order] = self._teach(arm.order)
        splits, teacher = self._taught[arm.order]
        return TrainingInput(
            splits, teacher, self.artifacts / "backbone", arm.seed, default_device()
        )

    def _teach(self, order: Order) -> tuple[Splits, SASRec]:
        """The store's own teacher; for shuffled histories one that learned from them too (SPEC E2: all stages)."""
        if order == "original":
            return self.splits, SASRec.load(self.artifacts / "teacher")
        splits = ShuffledTraining.of(self.splits, self.config.shuffle_seed)
        config = load_section(TeacherConfig, "teacher", self.params)
        return splits, teacher_of(config, splits, self.scratch, "teacher-shuffled")

    @cached_property
    def backbone_digest(self) -> tuple[str, str]:
        """Which weights, and how exactly they are computed with."""
        pinned = read_json(self.artifacts / "backbone" / "backbone.json")
        return pinned["revision"], pinned["dtype"]

    def key(self, arm: Arm, system: System, given: TrainingInput) -> str:
        """All that the trained system depends on."""
        code = code_of(type(system), train_system)
        return fingerprint(
            system, arm, code, given.teacher.digest, self.backbone_digest, encoders_of(system),
            *learned_from(given.splits),
        )  # fmt: skip


def compare(store: Store, arms: Sequence[Arm]) -> dict[Arm, Outcome]:
    progress = Progress("comparing", len(arms), "trainings", interval=0.0)
    outcomes = {}
    for arm in arms:
        print(f"{arm.system}, {arm.mode}, {arm.order} histories, seed {arm.seed}", file=sys.stderr)
        outcomes[arm] = outcome_of(store, arm)
        progress.advance(note=f"{arm.system} {arm.name}")
    return outcomes


def outcome_of(store: Store, arm: Arm) -> Outcome:
    """Trained if it is not, judged if it was not in this way."""
    system, given, folder = (
        system_of(arm.system, arm.mode, store.params),
        store.given(arm),
        store.folder(arm),
    )
    key = store.key(arm, system, given)
    judged = fingerprint(key, store.asked.digest, code_of(Outcome))
    outcome = folder / "outcome"
    if (outcome / "facts.json").exists() and read_json(outcome / "facts.json")["key"] == judged:
        return Outcome.load(outcome)
    scratch = store.scratch / "systems" / arm.system / f"{arm.name}-{key[:12]}"
    _of_key(folder, key)
    network = train_system(system, given, folder, scratch, key)
    model = system.model(network, given)
    shuffled = arm.order == "original" and store.asked.evaluation.shuffles > 0  # SPEC E4
    if isinstance(model, Answerer):
        values = evaluate_titles(model, store.asked, scratch / judged[:12], shuffled=shuffled)
    else:
        values = evaluate_ranker(model, store.asked, shuffled=shuffled)
    facts = {
        "key": judged,
        "asked": store.asked.digest,
        "parameters": num_trained(network),
        "stages": [_kept(**curve) for curve in read_json(folder / "curves.json")],
    }
    found = Outcome(values, facts)
    found.save(outcome)
    shutil.rmtree(scratch, ignore_errors=True)  # the folder has it all by now
    del network, model
    _free()
    return found


def _of_key(folder: Path, key: str) -> None:
    """The folder is this training's: what another left there goes."""
    file = folder / "key.json"
    if not file.exists() or read_json(file) != key:
        shutil.rmtree(folder, ignore_errors=True)
        write_json(file, key)


def _kept(selected_by: str | None, looks: Rows) -> dict[str, int | float]:
    """The look whose weights were kept, and where the training ended."""
    ended = looks[-1]
    if selected_by is not None:
        kept = max(looks, key=lambda row: row[selected_by])
        return {
            "ended": ended["step"],
            "step": kept["step"],
            f"valid {selected_by}": kept[selected_by],
        }
    told = {f"valid {name}": ended[name] for name in VALIDATED if name in ended}
    return {"ended": ended["step"], "step": ended["step"], **dict(list(told.items())[:1])}


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
