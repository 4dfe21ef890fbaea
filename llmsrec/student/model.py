"""LLM-SRec (SPEC 3 and 4.9): a frozen language model, and the few parts that are trained around it."""

import dataclasses
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor

from llmsrec.config import from_mapping
from llmsrec.data.catalog import Catalog
from llmsrec.data.sequences import Sequences
from llmsrec.errors import ArtifactError
from llmsrec.files import read_json, whole_folder
from llmsrec.student.backbone import Backbone, load_backbone
from llmsrec.student.decoder import Rows
from llmsrec.student.heads import LLMSRecConfig, centre
from llmsrec.student.padding import chunks, on_device
from llmsrec.student.prefixes import PrefixCache, Prefixes, compute_prefixes
from llmsrec.student.prompts import IOUT, UOUT, PromptBuilder
from llmsrec.student.recipe import LLM_SREC, Recipe
from llmsrec.student.slots import Reader
from llmsrec.teacher.sasrec import SASRec


class LLMSRec(Reader):
    """Users and items read out of `slots`; `recipe` makes it another system of SPEC 3's table in mode R."""

    prompts: PromptBuilder

    def __init__(
        self,
        config: LLMSRecConfig,
        backbone: Backbone,
        teacher: SASRec,
        catalog: Catalog,
        recipe: Recipe = LLM_SREC,
    ) -> None:
        super().__init__(config, recipe, backbone, teacher)
        self.prompts = PromptBuilder(backbone.tokenizer, catalog.titles, self.slots.shape)
        texts = [self.prompts.item_prefix(item) for item in range(catalog.num_items + 1)]
        self.prefixes = Prefixes.of(texts)
        self.cache: PrefixCache | None = None

    def keep_prefixes(self, budget: float) -> bool:
        """Keep the item texts' keys and values for as long as the model lives, if they fit `budget` GB.

        What is trained has none that last."""
        if self.recipe.lora is not None:
            return False
        decoder = self.slots.decoder
        fits = PrefixCache.num_bytes(self.prefixes, self.backbone.model) <= budget * 1e9
        self.cache = PrefixCache(self.prefixes, decoder) if fits else None
        return fits

    @torch.no_grad()
    def centre_heads(self, histories: Sequences, items: Int[np.ndarray, "n"]) -> None:
        """Centre both heads on the states of some users and items, as training sees them: with values dropped."""
        centre(self.heads.user_head, self._user_states(histories, None))
        centre(self.heads.item_head, self._item_states(items))

    def represent_users(
        self, histories: Sequences, teacher_users: Float[Tensor, "users teacher"] | None = None
    ) -> Float[Tensor, "users shared"]:
        """`teacher_users` (O_u) is shown in the prompt where `with_user_rep` says so."""
        return self.heads.user_head(self._user_states(histories, teacher_users))

    def represent_growing_users(
        self, histories: Sequences, first: Int[np.ndarray, "rows"]
    ) -> Float[Tensor, "reads shared"]:
        """A user after each purchase but the `first` ones, all in one pass: row by row, oldest first."""
        assert not self.recipe.user_slot, "the vector in the prompt differs at each purchase"
        prompts = self.prompts.growing_users(histories, first)
        return self.heads.user_head(self.slots.read(prompts, prompts.tokens == UOUT))

    def represent_items(self, items: Int[np.ndarray, "items"]) -> Float[Tensor, "items shared"]:
        return self.heads.item_head(self._item_states(items))

    def _user_states(
        self, histories: Sequences, teacher_users: Float[Tensor, "users teacher"] | None
    ) -> Float[Tensor, "users hidden"]:
        if not self.recipe.user_slot:
            teacher_users = None
        elif teacher_users is None:
            teacher_users = self.teacher.represent(histories)
        prompts = self.prompts.users(histories)
        return self.slots.read(prompts, prompts.tokens == UOUT, teacher_users)

    def _item_states(self, items: Int[np.ndarray, "items"]) -> Float[Tensor, "items hidden"]:
        if self.recipe.lora is not None:  # the text before the slot is read by what is trained, too
            prompts = self.prompts.items(items)
            return self.slots.read(prompts, prompts.tokens == IOUT)
        order, device = (
            np.argsort(self.prefixes.lengths[items], kind="stable"),
            self.backbone.device,
        )
        lengths = self.prefixes.lengths[items] + len(self.prompts.item_suffix)
        parts = [self._read_items(items[chunk]) for chunk in chunks(order, lengths, device)]
        return torch.cat(parts)[on_device(np.argsort(order, kind="stable"), device)]

    def _read_items(self, items: Int[np.ndarray, "rows"]) -> Float[Tensor, "rows hidden"]:
        """The fixed text of each item is kept or run forward only; its slot and what follows are run for gradients."""
        device, table = self.backbone.device, self.backbone.token_table
        kept, real = (
            compute_prefixes(self.prefixes, self.slots.decoder, items)
            if self.cache is None
            else self.cache.take(items)
        )
        suffix = on_device(np.array(self.prompts.item_suffix), device)
        embedded = table[suffix.clamp(min=0)].expand(len(items), -1, -1).clone()
        if self.recipe.item_slots:
            written = self.slots.written(on_device(items, device))
            embedded[:, 0] = written.to(table.dtype)
        embedded[:, -1] = self.heads.soft_tokens[1].to(table.dtype)
        lengths = on_device(self.prefixes.lengths[items], device)
        count = len(suffix)
        own = torch.ones(count, count, dtype=torch.bool, device=device).tril()
        before = on_device(real, device)[:, None].expand(-1, count, -1)
        rows = Rows(
            embedded,
            positions=lengths[:, None] + torch.arange(count, device=device),
            reads=torch.full((len(items), 1), count - 1, device=device),
            mask=torch.cat([before, own.expand(len(items), -1, -1)], dim=2),
            kept=kept,
        )
        return self.slots.decoder.read(rows)[:, 0].float()

    @classmethod
    def untaught(
        cls,
        config: LLMSRecConfig,
        backbone: Backbone,
        teacher: SASRec,
        catalog: Catalog,
        recipe: Recipe = LLM_SREC,
    ) -> "LLMSRec":
        """With networks as they start, drawn from the global state of torch."""
        model = cls(config, backbone, teacher, catalog, recipe)
        model.heads.start_tokens(backbone.token_table)
        return model

    def save_pretrained(self, folder: Path) -> None:
        """config.json and model.safetensors, holding only what was trained."""
        with whole_folder(folder) as aside:
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
        """A trained student; backbone, teacher and catalogue are looked for beside its folder unless given."""
        file = folder / "config.json"
        values = {key: value for key, value in read_json(file).items() if key != "model_type"}
        config = from_mapping(LLMSRecConfig, values, where=str(file))
        beside = folder.parent
        backbone = backbone or load_backbone(beside / "backbone", device)
        teacher = teacher or SASRec.load(beside / "teacher")
        catalog = catalog or Catalog.load(beside / "splits" / "items.parquet")
        for name, digest in (("backbone", backbone.digest), ("teacher", teacher.digest)):
            if digest != getattr(config, name):
                raise ArtifactError(
                    f"{folder} was trained with another {name} ({getattr(config, name)[:12]}, "
                    f"found {digest[:12]}): rerun the student step"
                )
        recipe = replace(LLM_SREC, user_slot=config.with_user_rep)
        model = cls(config, backbone, teacher, catalog, recipe)
        model.heads.load_state_dict(load_file(folder / "model.safetensors"))
        return model.eval()
