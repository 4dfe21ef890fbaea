"""TALLRec, LLaRA, CoLLM and LLM-SRec (specification 4.5 to 4.9): for retrieval and for title generation."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from llmsrec.generation import trainer
from llmsrec.generation.titles import Score, TitleAnswerer, TitleWriter
from llmsrec.llm.variants import LLMVariant
from llmsrec.student.config import StudentConfig
from llmsrec.student.model import LLMSRec
from llmsrec.student.ranker import StudentRanker, encode_items
from llmsrec.student.trainer import Trainer, training_stage
from llmsrec.systems.schedules import Schedule, scheduled
from llmsrec.systems.system import Stage, TrainingInput
from llmsrec.training.loop import TrainingPlan


@dataclass(frozen=True)
class LanguageRanker:
    """A system that retrieves. `config` is the section `student` with the changes of the system."""

    config: StudentConfig
    variant: LLMVariant
    schedule: Schedule

    def network(self, inputs: TrainingInput) -> LLMSRec:
        backbone = inputs.language_model()
        settings = self.config.model(backbone, inputs.teacher)
        return LLMSRec.from_scratch(
            settings, backbone, inputs.teacher, inputs.splits.catalog, self.variant
        )

    def stages(self, network: LLMSRec, inputs: TrainingInput) -> Iterator[Stage]:
        config = replace(self.config, seed=inputs.seed)

        def new_training(model: LLMSRec, *, from_scratch: bool) -> tuple[Trainer, TrainingPlan]:
            centred = config.centred_start and from_scratch
            return training_stage(model, inputs.splits, replace(config, centred_start=centred))

        yield from scheduled(self.schedule, network, new_training, inputs.seed)

    def model(self, network: LLMSRec, inputs: TrainingInput) -> StudentRanker:
        return StudentRanker(network.eval(), encode_items(network, inputs.splits.num_items))


@dataclass(frozen=True)
class LanguageWriter:
    """A system that writes the title of the next purchase, or takes the likeliest of the candidates' titles."""

    config: StudentConfig
    variant: LLMVariant
    schedule: Schedule
    score: Score

    def network(self, inputs: TrainingInput) -> TitleWriter:
        backbone = inputs.language_model(writes=True)
        settings, splits = self.config.model(backbone, inputs.teacher), inputs.splits
        count = splits.generation_candidates["test"].items.shape[1]
        return TitleWriter(settings, backbone, inputs.teacher, splits.catalog, self.variant, count)

    def stages(self, network: TitleWriter, inputs: TrainingInput) -> Iterator[Stage]:
        config = replace(self.config, seed=inputs.seed)

        def new_training(
            model: TitleWriter, *, from_scratch: bool
        ) -> tuple[trainer.TitleTrainer, TrainingPlan]:
            return trainer.training_stage(model, inputs.splits, config, self.score)

        yield from scheduled(self.schedule, network, new_training, inputs.seed)

    def model(self, network: TitleWriter, inputs: TrainingInput) -> TitleAnswerer:
        return TitleAnswerer(network.eval(), self.score)
