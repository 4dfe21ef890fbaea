"""LLM-SRec (SPEC 3 and 4.9): a frozen language model, and the few parts that are trained around it."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from llmsrec.config import from_mapping
from llmsrec.data.catalog import Catalog
from llmsrec.data.sequences import Sequences
from llmsrec.errors import ArtifactError
from llmsrec.files import read_json, whole_folder
from llmsrec.student.backbone import Backbone, load_backbone
from llmsrec.student.decoder import Decoder, Rows
from llmsrec.student.heads import Heads, LLMSRecConfig, centre
from llmsrec.student.padding import chunks, seen, spread
from llmsrec.student.prefixes import PrefixCache, Prefixes, compute_prefixes
from llmsrec.student.prompts import HIST, UOUT, UREP, PromptBuilder, Prompts
from llmsrec.teacher.sasrec import SASRec


class LLMSRec(nn.Module):
    """`heads` is trained; the backbone and the teacher are not part of the module's parameters."""

    def __init__(
        self, config: LLMSRecConfig, backbone: Backbone, teacher: SASRec, catalog: Catalog
    ) -> None:
        super().__init__()
        self.config = config
        self.heads = Heads(config)
        self._frozen = (backbone, teacher)  # in a tuple, so that nn.Module does not adopt them
        self.decoder = Decoder(backbone.model)
        self.prompts = PromptBuilder(
            backbone.tokenizer,
            catalog.titles,
            window=config.window,
            title_tokens=config.title_tokens,
            max_prompt_tokens=config.max_prompt_tokens,
            with_user_rep=config.with_user_rep,
        )
        texts = [self.prompts.item_prefix(item) for item in range(catalog.num_items + 1)]
        self.prefixes = Prefixes.of(texts)
        self.cache: PrefixCache | None = None
        self.heads.to(backbone.device)

    @property
    def backbone(self) -> Backbone:
        return self._frozen[0]

    @property
    def teacher(self) -> SASRec:
        return self._frozen[1]

    def keep_prefixes(self, budget: float) -> bool:
        """Keep the item texts' keys and values for as long as the model lives, if they fit `budget` GB."""
        fits = PrefixCache.num_bytes(self.prefixes, self.backbone.model) <= budget * 1e9
        self.cache = PrefixCache(self.prefixes, self.decoder) if fits else None
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
        assert not self.config.with_user_rep, "the vector in the prompt differs at each purchase"
        return self.heads.user_head(
            self._read_out(self.prompts.growing_users(histories, first), None)
        )

    def represent_items(self, items: Int[np.ndarray, "items"]) -> Float[Tensor, "items shared"]:
        return self.heads.item_head(self._item_states(items))

    def _user_states(
        self, histories: Sequences, teacher_users: Float[Tensor, "users teacher"] | None
    ) -> Float[Tensor, "users hidden"]:
        if self.config.with_user_rep and teacher_users is None:
            teacher_users = self.teacher.represent(histories)
        return self._read_out(self.prompts.users(histories), teacher_users)

    def _item_states(self, items: Int[np.ndarray, "items"]) -> Float[Tensor, "items hidden"]:
        order = np.argsort(self.prefixes.lengths[items], kind="stable")
        lengths = self.prefixes.lengths[items] + len(self.prompts.item_suffix)
        parts = [self._read_items(items[chunk]) for chunk in chunks(order, lengths)]
        return torch.cat(parts)[_back(order, self.backbone.device)]

    def _read_items(self, items: Int[np.ndarray, "rows"]) -> Float[Tensor, "rows hidden"]:
        """The fixed text of each item is kept or run forward only; its slot and what follows are run for gradients."""
        device, table = self.backbone.device, self.backbone.token_table
        kept, real = (
            compute_prefixes(self.prefixes, self.decoder, items)
            if self.cache is None
            else self.cache.take(items)
        )
        suffix = torch.tensor(self.prompts.item_suffix, device=device)
        embedded = table[suffix.clamp(min=0)].expand(len(items), -1, -1).clone()
        known = self.teacher.item_table.to(device)[torch.from_numpy(items).to(device)]
        embedded[:, 0] = self._written(known).to(table.dtype)
        embedded[:, -1] = self.heads.soft_tokens[1].to(table.dtype)
        lengths = torch.from_numpy(self.prefixes.lengths[items]).to(device)
        count = len(suffix)
        own = torch.ones(count, count, dtype=torch.bool, device=device).tril()
        before = torch.from_numpy(real).to(device)[:, None].expand(-1, count, -1)
        rows = Rows(
            embedded,
            positions=lengths[:, None] + torch.arange(count, device=device),
            reads=torch.full((len(items), 1), count - 1, device=device),
            mask=torch.cat([before, own.expand(len(items), -1, -1)], dim=2),
            kept=kept,
        )
        return self.decoder.read(rows)[:, 0].float()

    def _read_out(
        self, prompts: Prompts, teacher_users: Float[Tensor, "rows teacher"] | None
    ) -> Float[Tensor, "reads hidden"]:
        """The last hidden state at every read-out slot, in order.

        Prompts run in chunks of like length, right padded: in a causal model no token sees what pads behind it."""
        order = np.argsort(prompts.lengths, kind="stable")
        states, rows = [], []
        for chunk in chunks(order, prompts.lengths):
            some = prompts.take(chunk)
            vectors = None if teacher_users is None else teacher_users[torch.from_numpy(chunk)]
            found, row = self._run(some, vectors)
            states.append(found)
            rows.append(chunk[row])
        back = np.argsort(np.concatenate(rows), kind="stable")
        return torch.cat(states)[torch.from_numpy(back).to(self.backbone.device)]

    def _run(
        self, prompts: Prompts, teacher_users: Tensor | None
    ) -> tuple[Float[Tensor, "reads hidden"], Int[np.ndarray, "reads"]]:
        """States at the read-out slots of these prompts, and the row of each."""
        device = self.backbone.device
        real = np.arange(int(prompts.lengths.max())) < prompts.lengths[:, None]
        tokens, positions, segments = (
            spread(values, real) for values in (prompts.tokens, prompts.positions, prompts.segments)
        )
        row, column = np.nonzero(tokens == UOUT)
        number = np.arange(len(row)) - np.searchsorted(row, row)  # of a read-out in its row
        reads = np.zeros((len(real), int(number.max()) + 1), dtype=np.int64)
        reads[row, number] = column
        rows = Rows(
            self.embed(torch.from_numpy(tokens).to(device), prompts.items, teacher_users),
            torch.from_numpy(positions).to(device),
            torch.from_numpy(reads).to(device),
            mask=seen(torch.from_numpy(segments).to(device)) if segments.any() else None,
        )
        states = self.decoder.read(rows)
        return states[torch.from_numpy(row), torch.from_numpy(number)].float(), row

    def embed(
        self,
        tokens: Int[Tensor, "rows tokens"],
        items: Int[np.ndarray, "soft"],
        teacher_users: Tensor | None = None,
    ) -> Float[Tensor, "rows tokens hidden"]:
        """Token vectors with every slot's vector in its place, written by one indexed scatter."""
        table = self.backbone.token_table
        unique, place = np.unique(items, return_inverse=True)  # shown twice, projected once
        known = self.teacher.item_table.to(table.device)[torch.from_numpy(unique).to(table.device)]
        projected = self._written(known)[torch.from_numpy(place).to(table.device)]
        flat = tokens.flatten()
        reads = (flat == UOUT).nonzero()[:, 0]
        where = [(flat == HIST).nonzero()[:, 0], reads]
        what = [projected, self.heads.soft_tokens[0].expand(len(reads), -1)]
        if teacher_users is not None and self.config.with_user_rep:
            where.append((flat == UREP).nonzero()[:, 0])
            what.append(self.heads.user_projector(teacher_users.to(table.device)))
        embedded = table[flat.clamp(min=0)]
        filled = embedded.index_copy(0, torch.cat(where), torch.cat(what).to(table.dtype))
        return filled.view(*tokens.shape, -1)

    def _written(self, known: Float[Tensor, "items teacher"]) -> Float[Tensor, "items hidden"]:
        """What stands in the slots of these teacher's vectors; in training some of their values are dropped, lest the
        student rely on what the teacher made of the very purchases it learns from."""
        kept = functional.dropout(known, self.config.slot_dropout, self.training)
        return self.heads.item_projector(kept)

    @classmethod
    def untaught(
        cls, config: LLMSRecConfig, backbone: Backbone, teacher: SASRec, catalog: Catalog
    ) -> "LLMSRec":
        """With networks as they start, drawn from the global state of torch."""
        model = cls(config, backbone, teacher, catalog)
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
        model = cls(config, backbone, teacher.to(backbone.device), catalog)
        model.heads.load_state_dict(load_file(folder / "model.safetensors"))
        return model.eval()


def _back(order: Int[np.ndarray, "rows"], device: torch.device) -> Int[Tensor, "rows"]:
    return torch.from_numpy(np.argsort(order, kind="stable")).to(device)
