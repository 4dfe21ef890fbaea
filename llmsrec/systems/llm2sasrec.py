"""LLM2SASRec (LLM2Sequential, arXiv 2402.01339): SASRec whose item table starts from a language model's item states.

The original reduces the vectors by principal components, among others; here these are whitened and scaled to
the standard deviation of the default table.
"""

from dataclasses import dataclass

from llmsrec.core.config import Count
from llmsrec.sequential.sasrec import SASRec
from llmsrec.sequential.trainer import TeacherConfig
from llmsrec.systems.causal import CausalSystem
from llmsrec.systems.system import TrainingInput
from llmsrec.systems.text_vectors import encoder_of, start_table, text_vectors, whitened


@dataclass(frozen=True)
class LLM2SASRec(CausalSystem):
    """`config` is the section `teacher` with the changes of the system."""

    config: TeacherConfig
    encoder: str
    max_tokens: Count

    def network(self, inputs: TrainingInput) -> SASRec:
        network = self.config.build_network(inputs.splits.num_items)
        texts = text_vectors(
            inputs.splits.catalog, encoder_of(self.encoder, inputs), self.max_tokens
        )
        start_table(network, whitened(texts, network.embedding_size))
        return network
