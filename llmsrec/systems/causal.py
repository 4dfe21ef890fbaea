"""Causal networks by the teacher's own training: SASRec and its stronger kin (SPEC 4.1, 9), GRU4Rec and NextItNet."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from llmsrec.sequential.network import CausalTraining, SequenceNetwork
from llmsrec.sequential.ranker import TeacherRanker
from llmsrec.sequential.trainer import stage_of
from llmsrec.systems.system import Given, Stage


@dataclass(frozen=True)
class CausalSystem:
    """`config` says which network it is."""

    config: CausalTraining

    def network(self, given: Given) -> SequenceNetwork:
        return self.config.untrained(given.splits.num_items)

    def stages(self, network: SequenceNetwork, given: Given) -> Iterator[Stage]:
        config = replace(self.config, seed=given.seed)
        yield Stage(*stage_of(network, given.splits, config, type(network).__name__))

    def model(self, network: SequenceNetwork, given: Given) -> TeacherRanker:
        return TeacherRanker(network)
