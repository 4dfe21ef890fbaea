"""LLM-SRec (specification 4.9): a frozen language model with trained heads, projector and soft tokens."""

import dataclasses
import json
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from llmsrec.core.config import from_mapping
from llmsrec.core.errors import ArtifactError
from llmsrec.core.files import atomic_directory, read_json
from llmsrec.data.catalog import Catalog
from llmsrec.llm.backbone import Backbone, load_backbone
from llmsrec.llm.heads import PromptModelConfig
from llmsrec.llm.retrieval import RetrievalModel
from llmsrec.llm.variants import LLM_SREC
from llmsrec.sequential.sasrec import SASRec
from llmsrec.training.distributed import default_device


class LLMSRec(RetrievalModel):
    """The student. Only `heads` is trained and saved; backbone and teacher are frozen."""

    def __init__(
        self, config: PromptModelConfig, backbone: Backbone, teacher: SASRec, catalog: Catalog
    ) -> None:
        variant = replace(LLM_SREC, user_vector=config.user_vector_in_prompt)
        super().__init__(config, variant, backbone, teacher, catalog)

    def save_pretrained(self, folder: Path) -> None:
        """Write config.json and model.safetensors, which holds the trained parameters only."""
        with atomic_directory(folder) as aside:
            document = {"model_type": "llm-srec", **dataclasses.asdict(self.config)}
            (aside / "config.json").write_text(json.dumps(document, indent=2) + "\n")
            save_file(
                {name: tensor.contiguous() for name, tensor in self.heads.state_dict().items()},
                aside / "model.safetensors",
            )

    @classmethod
    def from_pretrained(
        cls,
        folder: Path,
        *,
        backbone: Backbone | None = None,
        teacher: SASRec | None = None,
        catalog: Catalog | None = None,
        device: torch.device | str = "cpu",
    ) -> "LLMSRec":
        """A trained student in evaluation mode. What is not given is loaded from the parent of `folder`.

        Raises ArtifactError if it was trained with another backbone or teacher."""
        file = folder / "config.json"
        values = {key: value for key, value in read_json(file).items() if key != "model_type"}
        config = from_mapping(PromptModelConfig, values, where=str(file))
        backbone = backbone or load_backbone(folder.parent / "backbone", device)
        teacher = teacher or SASRec.load(folder.parent / "teacher")
        catalog = catalog or Catalog.load(folder.parent / "splits" / "items.parquet")
        for name, digest in (("backbone", backbone.digest), ("teacher", teacher.digest)):
            if digest != getattr(config, name):
                raise ArtifactError(
                    f"{folder} was trained with another {name} ({getattr(config, name)[:12]}, "
                    f"found {digest[:12]}): rerun the student step"
                )
        model = cls(config, backbone, teacher, catalog)
        model.heads.load_state_dict(load_file(folder / "model.safetensors"))
        return model.eval()


def load_student(folder: Path, backbone: Path, teacher: Path, catalog: Catalog) -> LLMSRec:
    """The student with the models of these folders, on the default device; raises as `LLMSRec.from_pretrained`."""
    return LLMSRec.from_pretrained(
        folder,
        backbone=load_backbone(backbone, default_device()),
        teacher=SASRec.load(teacher),
        catalog=catalog,
    )
