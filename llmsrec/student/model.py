"""LLM-SRec (SPEC 3 and 4.9): a frozen language model, and the few parts that are trained around it."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from llmsrec.config import from_mapping
from llmsrec.data.catalog import Catalog
from llmsrec.data.sequences import Sequences
from llmsrec.errors import ArtifactError
from llmsrec.files import read_json, whole_folder
from llmsrec.student.backbone import Backbone, load_backbone
from llmsrec.student.prompts import HIST, IOUT, UOUT, UREP, PromptBuilder, Prompts
from llmsrec.teacher.sasrec import SASRec

TRAINING_TOKENS = 1 << 13  # padded tokens of one forward pass while gradients are kept
READING_TOKENS = 1 << 15


@dataclass(frozen=True)
class LLMSRecConfig:
    """What must be known to load a student; `backbone` and `teacher` name the weights it was trained with."""

    embedding_size: int
    hidden_size: int
    shared_size: int
    head_size: int
    window: int
    title_tokens: int
    max_prompt_tokens: int
    with_user_rep: bool
    backbone: str
    teacher: str


def head(inner: int, middle: int, outer: int, activation: nn.Module) -> nn.Sequential:
    """Linear - LayerNorm - activation - Linear; every network around the backbone has this shape."""
    return nn.Sequential(
        nn.Linear(inner, middle), nn.LayerNorm(middle), activation, nn.Linear(middle, outer)
    )


class Heads(nn.Module):
    """All that is trained, in float32."""

    def __init__(self, config: LLMSRecConfig) -> None:
        super().__init__()
        hidden, shared = config.hidden_size, config.shared_size
        self.item_projector = head(config.embedding_size, hidden, hidden, nn.LeakyReLU(0.01))
        self.user_head = head(hidden, config.head_size, shared, nn.LeakyReLU(0.01))
        self.item_head = head(hidden, config.head_size, shared, nn.LeakyReLU(0.01))
        self.teacher_head = head(config.embedding_size, shared, shared, nn.GELU())
        self.soft_tokens = nn.Parameter(torch.zeros(2, hidden))  # the read-outs of users and items
        if config.with_user_rep:
            self.user_projector = head(config.embedding_size, hidden, hidden, nn.LeakyReLU(0.01))
        for module in (self.user_head, self.item_head):
            for layer in module:
                if isinstance(layer, nn.Linear):
                    nn.init.xavier_normal_(layer.weight)

    def start_tokens(self, table: Tensor) -> None:
        """Draw the soft tokens like the tokens of the backbone."""
        with torch.no_grad():
            mean, spread = table.float().mean(0), table.float().std(0)
            self.soft_tokens.copy_(mean + spread * torch.randn_like(self.soft_tokens))


class LLMSRec(nn.Module):
    """`heads` is trained; the backbone and the teacher are not part of the module's parameters."""

    def __init__(
        self, config: LLMSRecConfig, backbone: Backbone, teacher: SASRec, catalog: Catalog
    ) -> None:
        super().__init__()
        self.config = config
        self.heads = Heads(config)
        self._frozen = (backbone, teacher)  # in a tuple, so that nn.Module does not adopt them
        self.prompts = PromptBuilder(
            backbone.tokenizer,
            catalog.titles,
            window=config.window,
            title_tokens=config.title_tokens,
            max_prompt_tokens=config.max_prompt_tokens,
            with_user_rep=config.with_user_rep,
        )
        self.heads.to(backbone.device)

    @property
    def backbone(self) -> Backbone:
        return self._frozen[0]

    @property
    def teacher(self) -> SASRec:
        return self._frozen[1]

    def represent_users(
        self, histories: Sequences, teacher_users: Float[Tensor, "users teacher"] | None = None
    ) -> Float[Tensor, "users shared"]:
        """`teacher_users` (O_u) is shown in the prompt where `with_user_rep` says so."""
        prompts = self.prompts.users(histories)
        if self.config.with_user_rep and teacher_users is None:
            teacher_users = self.teacher.represent(histories)
        return self.heads.user_head(self.read_out(prompts, teacher_users))

    def represent_items(self, items: Int[np.ndarray, "items"]) -> Float[Tensor, "items shared"]:
        return self.heads.item_head(self.read_out(self.prompts.items(items), None))

    def read_out(
        self, prompts: Prompts, teacher_users: Float[Tensor, "rows teacher"] | None
    ) -> Float[Tensor, "rows hidden"]:
        """The frozen backbone's last hidden state at each prompt's last token, the read-out slot.

        Prompts run in chunks of like length, right padded: in a causal model no token sees what pads behind it."""
        budget = TRAINING_TOKENS if torch.is_grad_enabled() else READING_TOKENS
        order = np.argsort(prompts.lengths, kind="stable")
        parts = [
            self._run(prompts, chunk, teacher_users)
            for chunk in _chunks(order, prompts.lengths, budget)
        ]
        restore = torch.from_numpy(np.argsort(order, kind="stable")).to(self.backbone.device)
        return torch.cat(parts)[restore]

    def _run(
        self, prompts: Prompts, rows: Int[np.ndarray, "chunk"], teacher_users: Tensor | None
    ) -> Float[Tensor, "chunk hidden"]:
        device = self.backbone.device
        lengths = prompts.lengths[rows]
        tokens, mask = _padded(prompts, rows, lengths)
        embedded = self._embed(prompts, rows, tokens, teacher_users)
        states = self.backbone.model(
            inputs_embeds=embedded,
            attention_mask=torch.from_numpy(mask).to(device),
            use_cache=False,
        ).last_hidden_state
        last = torch.from_numpy(lengths - 1).to(device)
        return states[torch.arange(len(rows), device=device), last].float()

    def _embed(
        self,
        prompts: Prompts,
        rows: Int[np.ndarray, "chunk"],
        tokens: Int[np.ndarray, "chunk length"],
        teacher_users: Tensor | None,
    ) -> Float[Tensor, "chunk length hidden"]:
        """Token vectors with every slot's vector in its place, written by one indexed scatter."""
        table = self.backbone.token_table
        device = table.device
        words = torch.from_numpy(np.maximum(tokens, 0)).to(device)
        kinds = torch.from_numpy(np.minimum(tokens, 0)).to(device)
        items = np.concatenate([prompts.row_items(row) for row in rows])
        unique, place = np.unique(
            items, return_inverse=True
        )  # an item shown twice is projected once
        known = self.teacher.item_table.to(device)[torch.from_numpy(unique).to(device)]
        vectors = {
            HIST: self.heads.item_projector(known)[torch.from_numpy(place).to(device)],
            UOUT: self.heads.soft_tokens[0].expand(len(rows), -1),
            IOUT: self.heads.soft_tokens[1].expand(len(rows), -1),
        }
        if teacher_users is not None and self.config.with_user_rep:
            chosen = teacher_users.to(device)[torch.from_numpy(rows).to(device)]
            vectors[UREP] = self.heads.user_projector(chosen)
        embedded = table[words]
        filled = [kind for kind in vectors if bool((kinds == kind).any())]
        where = torch.cat([(kinds == kind).flatten().nonzero()[:, 0] for kind in filled])
        what = torch.cat([vectors[kind] for kind in filled]).to(table.dtype)
        return embedded.flatten(0, 1).index_copy(0, where, what).view(embedded.shape)

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


def _chunks(
    order: Int[np.ndarray, "rows"], lengths: Int[np.ndarray, "rows"], budget: int
) -> list[Int[np.ndarray, "chunk"]]:
    """Rows in order of length, cut where a chunk would pad beyond the budget or a third of it would be padding."""
    chunks: list[np.ndarray] = []
    start = 0
    for stop in range(1, len(order) + 1):
        if stop < len(order):
            longest, count = int(lengths[order[stop]]), stop + 1 - start
            full = longest * count > budget
            wasteful = longest > 1.5 * int(lengths[order[start]]) and count > 8
            if not (full or wasteful):
                continue
        chunks.append(order[start:stop])
        start = stop
    return chunks


def _padded(
    prompts: Prompts, rows: Int[np.ndarray, "chunk"], lengths: Int[np.ndarray, "chunk"]
) -> tuple[Int[np.ndarray, "chunk length"], Int[np.ndarray, "chunk length"]]:
    """Right padded tokens and the attention mask."""
    tokens = np.zeros((len(rows), int(lengths.max())), dtype=np.int64)
    mask = (np.arange(tokens.shape[1]) < lengths[:, None]).astype(np.int64)
    tokens[mask.astype(bool)] = np.concatenate([prompts.row(row) for row in rows])
    return tokens, mask
