"""In which order the parts of an adapted language model learn (SPEC 4.6, 4.7).

`joint` is the paper's: all at once. `two_stage` and `curriculum` are those of the original CoLLM and LLaRA."""

from collections.abc import Iterator
from typing import Any, Literal, Protocol, runtime_checkable

from torch import nn

from llmsrec.finetuning.trainer import RetrievalTrainer
from llmsrec.generation.trainer import TitleTrainer
from llmsrec.llm.soft_prompts import PromptModel
from llmsrec.systems.system import Stage
from llmsrec.training.loop import LossTerms, TrainingPlan
from llmsrec.training.seeding import generator

Schedule = Literal["joint", "two_stage", "curriculum"]
SCHEDULES: dict[str, tuple[Schedule, ...]] = {
    "llara": ("joint", "curriculum"),
    "collm": ("joint", "two_stage"),
}


@runtime_checkable  # tests check types at every call
class Begin(Protocol):
    def __call__(
        self, reader: Any, *, fresh: bool
    ) -> tuple[RetrievalTrainer | TitleTrainer, TrainingPlan]:
        """A training of this reader, whose heads are `fresh` or have learned before."""


def scheduled(schedule: Schedule, reader: PromptModel, begin: Begin, seed: int) -> Iterator[Stage]:
    if schedule == "two_stage":
        yield from two_stages(reader, begin)
        return
    trainer, plan = begin(reader, fresh=True)
    if schedule == "curriculum":
        yield Stage(Curriculum(trainer, plan.eval_steps[-1], seed), plan)
    else:
        yield Stage(trainer, plan)


def two_stages(reader: PromptModel, begin: Begin) -> Iterator[Stage]:
    """CoLLM's: what reads learns from text alone, and stands still while the maps of the teacher's vectors learn."""
    yield Stage(*begin(reader.text_only(), fresh=True))
    maps = {id(part) for part in reader.heads.projectors()}
    still = [part for part in reader.heads.parameters() if id(part) not in maps]
    for part in still:
        part.requires_grad_(False)
    yield Stage(*begin(reader, fresh=False))
    for part in still:
        part.requires_grad_(True)


class Curriculum:
    """LLaRA's: step t of T shows the teacher's vectors with probability t / T, else text alone, from which their maps
    learn nothing. Steps are those of the whole training (SPEC 6.17)."""

    def __init__(self, trainer: RetrievalTrainer | TitleTrainer, total: int, seed: int) -> None:
        self.trainer, self.total, self.seed = trainer, total, seed
        self.whole: Any = trainer.model
        self.text: Any = trainer.model.text_only()

    @property
    def network(self) -> nn.Module:
        return self.trainer.network

    @property
    def steps_per_epoch(self) -> int:
        return self.trainer.steps_per_epoch

    def step(self, step: int) -> LossTerms:
        shown = generator(self.seed, 4, step).random() < step / self.total
        self.trainer.model = self.whole if shown else self.text
        return self.trainer.step(step)

    def state(self) -> dict[str, Any]:
        return self.trainer.state()

    def restore(self, state: dict[str, Any]) -> None:
        self.trainer.restore(state)
