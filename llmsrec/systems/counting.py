"""Systems that count and train nothing."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from llmsrec.evaluation import baselines
from llmsrec.evaluation.ranker import Ranker
from llmsrec.systems.system import Given, Stage


@dataclass(frozen=True)
class Popularity:
    """How often an item was bought in training."""

    def network(self, given: Given) -> nn.Module:
        return nn.Module()

    def stages(self, network: nn.Module, given: Given) -> Iterator[Stage]:
        return iter(())

    def model(self, network: nn.Module, given: Given) -> Ranker:
        return baselines.Popularity(given.splits)
