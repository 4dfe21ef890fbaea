"""The weighted sum of the scores of other systems, as the recommender has it."""

from dataclasses import dataclass

from torch import nn

from llmsrec.core.errors import ConfigError
from llmsrec.ranking.ranker import cached
from llmsrec.recommender.hybrid import HybridRanker, fit_weights, score_users
from llmsrec.systems.item_knn import CountingSystem
from llmsrec.systems.system import TrainingInput


@dataclass(frozen=True)
class Hybrid(CountingSystem):
    """`parts` are names of variants, trained on their own; one that is named again has the next seed."""

    parts: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.parts) < 2:
            raise ValueError(f"a hybrid has at least two parts, not {list(self.parts)}")

    def model(self, network: nn.Module, inputs: TrainingInput) -> HybridRanker:
        """The sum of `inputs.models` with weights that are fitted to the validation targets."""
        if not inputs.models:
            raise ConfigError(
                f"a hybrid is made from trained parts: name {', '.join(self.parts)} instead"
            )
        parts = {name: cached(ranker) for name, ranker in inputs.models.items()}
        scored = score_users(parts, inputs.splits, "valid", inputs.seed)
        return HybridRanker(parts, fit_weights(scored))
