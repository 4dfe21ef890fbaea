"""Systems that rank by item texts and train nothing."""

from dataclasses import dataclass

from torch import nn

from llmsrec.core.config import Count
from llmsrec.recommender.content import ContentRanker
from llmsrec.systems.item_knn import CountingSystem
from llmsrec.systems.system import TrainingInput


@dataclass(frozen=True)
class Content(CountingSystem):
    """TF-IDF of the item texts; the cosine with the mean of the `last` purchases, as in the recommender."""

    last: Count

    def model(self, network: nn.Module, inputs: TrainingInput) -> ContentRanker:
        """The ranker that the stage `recommender` adds to teacher and student."""
        return ContentRanker.fit(inputs.splits.catalog, self.last)
