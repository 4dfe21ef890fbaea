"""The order in which the parts of an adapted language model are trained (specification 4.6, 4.7).

`joint` is the paper's: all parts at once. `two_stage` is the original CoLLM's, `curriculum` the original LLaRA's."""

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
class TrainingFactory(Protocol):
    def __call__(
        self, network: Any, /, *, from_scratch: bool
    ) -> tuple[RetrievalTrainer | TitleTrainer, TrainingPlan]:
        """A training of the network, whose heads start `from_scratch` or from an earlier training."""


def scheduled(
    schedule: Schedule, network: PromptModel, new_training: TrainingFactory, seed: int
) -> Iterator[Stage]:
    if schedule == "two_stage":
        yield from two_stages(network, new_training)
        return
    trainer, plan = new_training(network, from_scratch=True)
    if schedule == "curriculum":
        yield Stage(Curriculum(trainer, plan.eval_steps[-1], seed), plan)
    else:
        yield Stage(trainer, plan)


def two_stages(network: PromptModel, new_training: TrainingFactory) -> Iterator[Stage]:
    """CoLLM's: LoRA and heads are trained on text alone, then the projectors with all else frozen."""
    yield Stage(*new_training(network.text_only(), from_scratch=True))
    maps = {id(part) for part in network.heads.projectors()}
    frozen = [part for part in network.heads.parameters() if id(part) not in maps]
    for part in frozen:
        part.requires_grad_(False)
    yield Stage(*new_training(network, from_scratch=False))
    for part in frozen:
        part.requires_grad_(True)


class Curriculum:
    """LLaRA's: step t of T shows the teacher's vectors with probability t / T, else text alone, which does not
    train their projectors. T counts the steps of all epochs (specification 6.17)."""

    def __init__(self, trainer: RetrievalTrainer | TitleTrainer, total: int, seed: int) -> None:
        self.trainer, self.total, self.seed = trainer, total, seed
        self.full_model: Any = trainer.model
        self.text_model: Any = trainer.model.text_only()

    @property
    def network(self) -> nn.Module:
        return self.trainer.network

    @property
    def steps_per_epoch(self) -> int:
        return self.trainer.steps_per_epoch

    def step(self, step: int) -> LossTerms:
        shown = generator(self.seed, 4, step).random() < step / self.total
        self.trainer.model = self.full_model if shown else self.text_model
        return self.trainer.step(step)

    def state(self) -> dict[str, Any]:
        return self.trainer.state()

    def restore(self, state: dict[str, Any]) -> None:
        self.trainer.restore(state)
