"""Causal networks with the teacher's training: SASRec, its variants, GRU4Rec, NextItNet (specification 4, 9)."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from llmsrec.sequential.network import CausalTraining, SequenceNetwork
from llmsrec.sequential.ranker import SequentialRanker
from llmsrec.sequential.trainer import training_stage
from llmsrec.systems.system import Stage, TrainingInput


@dataclass(frozen=True)
class CausalSystem:
    """The class of `config` decides the network."""

    config: CausalTraining

    def network(self, inputs: TrainingInput) -> SequenceNetwork:
        return self.config.build_network(inputs.splits.num_items)

    def stages(self, network: SequenceNetwork, inputs: TrainingInput) -> Iterator[Stage]:
        config = replace(self.config, seed=inputs.seed)
        yield Stage(*training_stage(network, inputs.splits, config, type(network).__name__))

    def model(self, network: SequenceNetwork, inputs: TrainingInput) -> SequentialRanker:
        return SequentialRanker(network)
