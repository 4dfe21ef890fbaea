"""TALLRec, LLaRA, CoLLM and LLM-SRec (SPEC 4.5 to 4.9): one network for each mode, by the recipes of SPEC 3."""

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
    """Mode R. `config` is the section `student` with what the system changes of it."""

    config: StudentConfig
    variant: LLMVariant
    schedule: Schedule

    def network(self, given: TrainingInput) -> RetrievalModel:
        backbone, catalog = given.language_model(), given.splits.catalog
        settings = self.config.model_config(backbone, given.teacher)
        model = RetrievalModel(settings, self.variant, backbone, given.teacher, catalog)
        model.init_soft_tokens()
        return model

    def stages(self, network: RetrievalModel, given: TrainingInput) -> Iterator[Stage]:
        config = replace(self.config, seed=given.seed)

        trainer_class = StudentTrainer if self.variant.distils else RetrievalTrainer

        def begin(reader: RetrievalModel, *, fresh: bool) -> tuple[RetrievalTrainer, TrainingPlan]:
            center = config.center_heads_at_init and fresh
            settings = replace(config, center_heads_at_init=center)
            trainer = trainer_class(reader, given.splits, settings)
            trainer.prepare()
            return trainer, retrieval_plan(trainer, given.splits, "student")

        yield from scheduled(self.schedule, network, begin, given.seed)

    def model(self, network: RetrievalModel, given: TrainingInput) -> RetrievalRanker:
        return RetrievalRanker(network.eval(), encode_items(network, given.splits.num_items))


@dataclass(frozen=True)
class LanguageWriter:
    """Mode G: the title of the next purchase is written, or the likeliest of the candidates' taken."""

    config: StudentConfig
    variant: LLMVariant
    schedule: Schedule
    score: Score

    def network(self, given: TrainingInput) -> TitleWriter:
        backbone = given.language_model(writes=True)
        settings, splits = self.config.model_config(backbone, given.teacher), given.splits
        count = splits.generation_candidates["test"].items.shape[1]
        return TitleWriter(settings, backbone, given.teacher, splits.catalog, self.variant, count)

    def stages(self, network: TitleWriter, given: TrainingInput) -> Iterator[Stage]:
        config = replace(self.config, seed=given.seed)

        def begin(reader: TitleWriter, *, fresh: bool) -> tuple[trainer.TitleTrainer, TrainingPlan]:
            return trainer.training_stage(reader, given.splits, config, self.score)

        yield from scheduled(self.schedule, network, begin, given.seed)

    def model(self, network: TitleWriter, given: TrainingInput) -> TitleAnswerer:
        return TitleAnswerer(network.eval(), self.score)
