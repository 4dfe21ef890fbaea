"""SASRec and its stronger kin (SPEC 4.1, 9): the teacher's own network and training, by other settings."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from llmsrec.systems.system import Given, Stage
from llmsrec.teacher.ranker import TeacherRanker
from llmsrec.teacher.sasrec import SASRec
from llmsrec.teacher.train import TeacherConfig, stage_of


@dataclass(frozen=True)
class SASRecSystem:
    """`config` is the section `teacher`, with what the system changes of it."""

    config: TeacherConfig

    def network(self, given: Given) -> SASRec:
        return SASRec(self.config.network(given.splits.num_items))

    def stages(self, network: SASRec, given: Given) -> Iterator[Stage]:
        config = replace(self.config, seed=given.seed)
        yield Stage(*stage_of(network, given.splits, config, "SASRec"))

    def model(self, network: SASRec, given: Given) -> TeacherRanker:
        return TeacherRanker(network)
