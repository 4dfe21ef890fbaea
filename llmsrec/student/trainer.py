"""Train LLM-SRec (specification 4.9): the retrieval loss plus distillation from the teacher and uniformity."""

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from llmsrec.data.catalog import Catalog
from llmsrec.data.splits import Splits
from llmsrec.finetuning.trainer import RetrievalTrainer, retrieval_plan
from llmsrec.llm.backbone import Backbone
from llmsrec.llm.padding import to_device
from llmsrec.sequential.sasrec import SASRec
from llmsrec.student.config import StudentConfig
from llmsrec.student.losses import contrastive_loss, distillation_loss, uniformity_loss
from llmsrec.student.model import LLMSRec
from llmsrec.training import distributed
from llmsrec.training.checkpoints import Checkpoints
from llmsrec.training.loop import MetricLog, train
from llmsrec.training.seeding import seed_torch


def train_student(
    splits: Splits,
    teacher: SASRec,
    backbone: Backbone,
    config: StudentConfig,
    log: MetricLog,
    checkpoints: Checkpoints,
) -> LLMSRec:
    """A new student, trained; see `fit_student`."""
    seed_torch(config.seed)
    model = new_student(config, backbone, teacher, splits.catalog)
    return fit_student(model, splits, config, log, checkpoints)


def fit_student(
    model: LLMSRec,
    splits: Splits,
    config: StudentConfig,
    log: MetricLog,
    checkpoints: Checkpoints,
) -> LLMSRec:
    """`model` with the weights of its best validation, in evaluation mode.

    An interrupted run resumes from `checkpoints`."""
    trainer = StudentTrainer(model, splits, config)
    trainer.prepare()
    train(trainer, retrieval_plan(trainer, splits, "student"), log, checkpoints)
    return model.eval()


def new_student(
    config: StudentConfig, backbone: Backbone, teacher: SASRec, catalog: Catalog
) -> LLMSRec:
    """An untrained student, initialised from torch's global generator."""
    settings = config.model_config(backbone, teacher)
    model = LLMSRec(settings, backbone, teacher, catalog)
    model.init_soft_tokens()
    return model


class StudentTrainer(RetrievalTrainer):
    """Minimises the three terms of LLM-SRec; the model's variant distils."""

    config: StudentConfig

    def losses(
        self, rows: Int[np.ndarray, "batch"], draws: np.random.Generator
    ) -> dict[str, Tensor]:
        """The weighted sum `loss`, and its terms: retrieval, distillation, uniformity (eq. 1, 2, 3)."""
        config, batch = self.config, self.batch(rows)
        users = self.represent_users(batch)
        local = self.model.heads.teacher_head(batch.teacher_users)
        teacher_users = distributed.all_gather(local, batch.shards)
        owners = to_device(self.users[batch.read_outs], users.device)
        uniformity = uniformity_loss(users, owners) + uniformity_loss(teacher_users, owners)
        terms = {
            "retrieval": self.retrieval(users, batch.read_outs, draws),
            "distillation": self._distillation(users, teacher_users),
            "uniformity": uniformity,
        }
        loss = terms["retrieval"] + config.distillation_weight * terms["distillation"]
        return {"loss": loss + config.uniformity_weight * uniformity, **terms}

    def _distillation(self, users: Tensor, teacher_users: Tensor) -> Float[Tensor, ""]:
        if self.config.distill == "contrastive":
            return contrastive_loss(users, teacher_users)
        return distillation_loss(
            users,
            teacher_users,
            normalize=self.config.normalize,
            reduction=self.config.distillation_reduction,
        )
