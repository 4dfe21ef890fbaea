"""TALLRec, LLaRA, CoLLM and LLM-SRec (specification 4.5 to 4.9): for retrieval and for title generation."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from llmsrec.finetuning.trainer import RetrievalTrainer, retrieval_plan
from llmsrec.generation import trainer
from llmsrec.generation.titles import Score, TitleAnswerer, TitleWriter
from llmsrec.llm.ranker import RetrievalRanker, encode_items
from llmsrec.llm.retrieval import RetrievalModel
from llmsrec.llm.variants import LLMVariant
from llmsrec.student.config import StudentConfig
from llmsrec.student.trainer import StudentTrainer
from llmsrec.systems.schedules import Schedule, scheduled
from llmsrec.systems.system import Stage, TrainingInput
from llmsrec.training.loop import TrainingPlan


@dataclass(frozen=True)
class LanguageRanker:
    """A system that retrieves. `config` is the section `student` with the changes of the system."""

    config: StudentConfig
    variant: LLMVariant
    schedule: Schedule

    def network(self, inputs: TrainingInput) -> RetrievalModel:
        backbone, catalog = inputs.language_model(), inputs.splits.catalog
        settings = self.config.model_config(backbone, inputs.teacher)
        model = RetrievalModel(settings, self.variant, backbone, inputs.teacher, catalog)
        model.init_soft_tokens()
        return model

    def stages(self, network: RetrievalModel, inputs: TrainingInput) -> Iterator[Stage]:
        config = replace(self.config, seed=inputs.seed)
        trainer_class = StudentTrainer if self.variant.distils else RetrievalTrainer

        def new_training(
            model: RetrievalModel, *, from_scratch: bool
        ) -> tuple[RetrievalTrainer, TrainingPlan]:
            center = config.center_heads_at_init and from_scratch
            settings = replace(config, center_heads_at_init=center)
            trainer = trainer_class(model, inputs.splits, settings)
            trainer.prepare()
            return trainer, retrieval_plan(trainer, inputs.splits, "student")

        yield from scheduled(self.schedule, network, new_training, inputs.seed)

    def model(self, network: RetrievalModel, inputs: TrainingInput) -> RetrievalRanker:
        return RetrievalRanker(network.eval(), encode_items(network, inputs.splits.num_items))


@dataclass(frozen=True)
class LanguageWriter:
    """A system that writes the title of the next purchase, or takes the likeliest of the candidates' titles."""

    config: StudentConfig
    variant: LLMVariant
    schedule: Schedule
    score: Score

    def network(self, inputs: TrainingInput) -> TitleWriter:
        backbone = inputs.language_model(writes=True)
        settings, splits = self.config.model_config(backbone, inputs.teacher), inputs.splits
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
