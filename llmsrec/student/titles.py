"""Mode G (SPEC 3): a language model that writes the title of the next purchase, one of some candidates."""

from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from llmsrec.data.candidates import normalise
from llmsrec.data.catalog import Catalog
from llmsrec.data.sequences import Sequences
from llmsrec.progress import Progress
from llmsrec.student.backbone import Backbone
from llmsrec.student.choices import Asked, ChoiceBuilder
from llmsrec.student.heads import LLMSRecConfig
from llmsrec.student.padding import chunks, spread
from llmsrec.student.prompts import Prompts
from llmsrec.student.recipe import Recipe
from llmsrec.student.slots import Reader
from llmsrec.teacher.sasrec import SASRec

NEW_TOKENS = 64  # written at most
CHUNK = 64  # prompts written at a time
TOLD = 1 << 12  # tokens whose chances over the whole vocabulary are held at a time

Score = Literal["greedy", "likelihood"]


class TitleWriter(Reader):
    """Titles out of `slots`: of `heads`, what fills slots and what is put into the language model is trained."""

    prompts: ChoiceBuilder

    def __init__(
        self,
        config: LLMSRecConfig,
        backbone: Backbone,
        teacher: SASRec,
        catalog: Catalog,
        recipe: Recipe,
        num_candidates: int,
    ) -> None:
        assert backbone.writer is not None, "load it with its head"
        super().__init__(config, recipe, backbone, teacher)
        self.prompts = ChoiceBuilder(
            backbone.tokenizer, catalog.titles, self.slots.shape, num_candidates
        )
        self.ends = backbone.ends
        self.names = [normalise(self._text(title)) for title in self.prompts.titles]

    def loss(
        self,
        histories: Sequences,
        candidates: Int[np.ndarray, "rows columns"],
        targets: Int[np.ndarray, "rows"],
        teacher_users: Float[Tensor, "rows teacher"] | None = None,
    ) -> Float[Tensor, ""]:
        """The mean over tokens of the cross-entropy of the targets' titles and their ends."""
        asked = self.prompts.told(histories, candidates, targets[:, None])
        return -self._log_likelihoods(asked, teacher_users).mean()

    @torch.no_grad()
    def likeliest(
        self, histories: Sequences, candidates: Int[np.ndarray, "rows columns"]
    ) -> Int[np.ndarray, "rows"]:
        """The column of the title that the model would write most readily, for each of its tokens."""
        asked = self.prompts.told(histories, candidates, candidates)
        each = self._log_likelihoods(asked, self._users(histories)).double().cpu().numpy()
        totals = np.bincount(asked.owners, each) / np.bincount(asked.owners)
        return totals.reshape(candidates.shape).argmax(axis=1)

    @torch.no_grad()
    def written(
        self, histories: Sequences, candidates: Int[np.ndarray, "rows columns"]
    ) -> list[str]:
        """What it writes, each next token the likeliest; its first line."""
        prompts = self.prompts.choices(histories, candidates)
        users = self._users(histories)
        texts = [""] * len(prompts)
        order, device = np.argsort(prompts.lengths, kind="stable"), self.backbone.device
        for chunk in chunks(order, prompts.lengths, device):
            some = prompts.take(chunk)
            real = np.arange(int(some.lengths.max())) < some.lengths[:, None]
            vectors = None if users is None else users[torch.from_numpy(chunk)]
            for row, text in zip(chunk.tolist(), self._write(some, real, vectors), strict=True):
                texts[row] = text
        return texts

    def _write(
        self, prompts: Prompts, real: Bool[np.ndarray, "rows tokens"], users: Tensor | None
    ) -> list[str]:
        """Left padded, so that all prompts end where writing begins."""
        device = self.backbone.device
        tokens = torch.from_numpy(spread(prompts.tokens, real))
        embedded = self.slots.embed(tokens, prompts.items, users)
        width = real.shape[1]
        shift = torch.from_numpy(
            (np.arange(width) - (width - prompts.lengths)[:, None]) % width
        ).to(device)
        left = embedded.gather(1, shift[:, :, None].expand_as(embedded))
        mask = torch.from_numpy(real[:, ::-1].copy()).to(device)
        found = self.backbone.writer.generate(
            inputs_embeds=left,
            attention_mask=mask.long(),
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            eos_token_id=sorted(self.ends),
            pad_token_id=self.prompts.end,
        )
        return [self._text(row) for row in found.tolist()]

    def _text(self, tokens: list[int]) -> str:
        """Up to its end, and of that the first line."""
        end = next((place for place, token in enumerate(tokens) if token in self.ends), len(tokens))
        lines = str(self.backbone.tokenizer.decode(tokens[:end])).strip().splitlines()
        return lines[0] if lines else ""

    def _users(self, histories: Sequences) -> Tensor | None:
        return self.teacher.represent(histories) if self.recipe.user_slot else None

    def _log_likelihoods(self, asked: Asked, teacher_users: Tensor | None) -> Float[Tensor, "told"]:
        """Of each told token after those before it."""
        states = self.slots.read(asked.prompts, asked.asked, teacher_users)
        head, device = self.backbone.writer.get_output_embeddings(), states.device
        found = []
        for start in range(0, len(asked.answers), TOLD):
            places, wanted = (
                torch.from_numpy(part[start : start + TOLD]).to(device)
                for part in (asked.places, asked.answers)
            )
            logits = head(states[places].to(head.weight.dtype)).float()
            found.append(-functional.cross_entropy(logits, wanted, reduction="none"))
        return torch.cat(found)


def column_of(text: str, names: list[str]) -> int:
    """Which candidate a text names (SPEC 3): the one it equals, else the only one that it contains; -1 is none."""
    answer = normalise(text)
    equal = [column for column, name in enumerate(names) if name and name == answer]
    if len(equal) == 1:
        return equal[0]
    within = [column for column, name in enumerate(names) if name and name in answer]
    return within[0] if not equal and len(within) == 1 else -1


class TitleAnswerer:
    """Which of the candidates' titles a trained model writes, or finds likeliest."""

    def __init__(self, model: TitleWriter, score: Score) -> None:
        self.model, self.score = model, score

    def answers(
        self, histories: Sequences, candidates: Int[np.ndarray, "users columns"]
    ) -> Int[np.ndarray, "users"]:
        found = np.full(len(candidates), -1, dtype=np.int64)
        progress = Progress("writing titles", len(found), "users")
        for start in range(0, len(found), CHUNK):
            rows = np.arange(start, min(start + CHUNK, len(found)))
            some, shown = histories.take(rows), candidates[rows]
            if self.score == "likelihood":
                found[rows] = self.model.likeliest(some, shown)
            else:
                texts = self.model.written(some, shown)
                names = [[self.model.names[item] for item in row] for row in shown.tolist()]
                found[rows] = [column_of(*pair) for pair in zip(texts, names, strict=True)]
            progress.advance(len(rows))
        return found
