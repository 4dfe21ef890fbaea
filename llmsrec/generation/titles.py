"""Generation (specification 3): a language model writes the title of the next purchase, one of the candidates."""

from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from llmsrec.core.progress import Progress
from llmsrec.data.catalog import Catalog
from llmsrec.data.sequences import Sequences
from llmsrec.generation.choices import ChoiceBuilder, ChoicePrompts
from llmsrec.llm.backbone import Backbone
from llmsrec.llm.heads import PromptModelConfig
from llmsrec.llm.padding import length_chunks, right_pad
from llmsrec.llm.prompts import Prompts
from llmsrec.llm.soft_prompts import PromptModel
from llmsrec.llm.variants import LLMVariant
from llmsrec.preprocessing.candidates import normalize_title
from llmsrec.sequential.sasrec import SASRec

MAX_NEW_TOKENS = 64
CHUNK = 64  # prompts at a time
LOGITS_CHUNK = 1 << 12  # tokens whose logits over the whole vocabulary are in memory at a time

Score = Literal["greedy", "likelihood"]


class TitleWriter(PromptModel):
    """Generates titles. Projectors and LoRA are trained, as the variant has them; backbone and teacher are frozen."""

    prompts: ChoiceBuilder

    def __init__(
        self,
        config: PromptModelConfig,
        backbone: Backbone,
        teacher: SASRec,
        catalog: Catalog,
        variant: LLMVariant,
        num_candidates: int,
    ) -> None:
        assert backbone.causal_lm is not None, "load it with its head"
        super().__init__(config, variant, backbone, teacher)
        self.prompts = ChoiceBuilder(
            backbone.tokenizer, catalog.titles, self.soft_prompts.shape, num_candidates
        )
        self.stop_tokens = backbone.stop_tokens
        self.names = [normalize_title(self._text(title)) for title in self.prompts.titles]

    def loss(
        self,
        histories: Sequences,
        candidates: Int[np.ndarray, "rows columns"],
        targets: Int[np.ndarray, "rows"],
        teacher_users: Float[Tensor, "rows teacher"] | None = None,
    ) -> Float[Tensor, ""]:
        """Mean cross-entropy of the tokens of the targets' titles, the end-of-text token included."""
        prompts = self.prompts.with_choices(histories, candidates, targets[:, None])
        return -self._log_likelihoods(prompts, teacher_users).mean()

    @torch.no_grad()
    def likeliest(
        self, histories: Sequences, candidates: Int[np.ndarray, "rows columns"]
    ) -> Int[np.ndarray, "rows"]:
        """The column of the candidate whose title has the highest mean log-likelihood per token."""
        prompts = self.prompts.with_choices(histories, candidates, candidates)
        values = self._log_likelihoods(prompts, self._users(histories)).double().cpu().numpy()
        means = np.bincount(prompts.answers, values) / np.bincount(prompts.answers)
        return means.reshape(candidates.shape).argmax(axis=1)

    @torch.no_grad()
    def write_titles(
        self, histories: Sequences, candidates: Int[np.ndarray, "rows columns"]
    ) -> list[str]:
        """The first line of the greedily decoded text of each prompt."""
        prompts = self.prompts.choices(histories, candidates)
        users = self._users(histories)
        texts = [""] * len(prompts)
        order = np.argsort(prompts.lengths, kind="stable")
        for chunk in length_chunks(order, prompts.lengths, self.backbone.device):
            vectors = None if users is None else users[torch.from_numpy(chunk)]
            generated = self._generate(prompts.take(chunk), vectors)
            for row, text in zip(chunk.tolist(), generated, strict=True):
                texts[row] = text
        return texts

    def _generate(self, prompts: Prompts, users: Tensor | None) -> list[str]:
        """Greedy decoding; rows are left padded, so that all prompts end in the same column."""
        device, width = self.backbone.device, int(prompts.lengths.max())
        is_token = np.arange(width) < prompts.lengths[:, None]
        tokens = torch.from_numpy(right_pad(prompts.tokens, is_token))
        embedded = self.soft_prompts.embed(tokens, prompts.items, users)
        shift = torch.from_numpy(
            (np.arange(width) - (width - prompts.lengths)[:, None]) % width
        ).to(device)
        left = embedded.gather(1, shift[:, :, None].expand_as(embedded))
        mask = torch.from_numpy(is_token[:, ::-1].copy()).to(device)
        generated = self.backbone.causal_lm.generate(
            inputs_embeds=left,
            attention_mask=mask.long(),
            max_new_tokens=MAX_NEW_TOKENS,
            do_sample=False,
            eos_token_id=sorted(self.stop_tokens),
            pad_token_id=self.prompts.end,
        )
        return [self._text(row) for row in generated.tolist()]

    def _text(self, tokens: list[int]) -> str:
        """The first line of the text before the first stop token."""
        end = next(
            (index for index, token in enumerate(tokens) if token in self.stop_tokens), len(tokens)
        )
        lines = str(self.backbone.tokenizer.decode(tokens[:end])).strip().splitlines()
        return lines[0] if lines else ""

    def _users(self, histories: Sequences) -> Tensor | None:
        return self.teacher.represent(histories) if self.variant.user_vector else None

    def _log_likelihoods(
        self, prompts: ChoicePrompts, teacher_users: Tensor | None
    ) -> Float[Tensor, "answer_tokens"]:
        """The log-likelihood of each answer token given the tokens before it."""
        states = self.soft_prompts.hidden_states(prompts.prompts, prompts.mask, teacher_users)
        head, device = self.backbone.causal_lm.get_output_embeddings(), states.device
        values = []
        for start in range(0, len(prompts.tokens), LOGITS_CHUNK):
            numbers, targets = (
                torch.from_numpy(part[start : start + LOGITS_CHUNK]).to(device)
                for part in (prompts.states, prompts.tokens)
            )
            logits = head(states[numbers].to(head.weight.dtype)).float()
            values.append(-functional.cross_entropy(logits, targets, reduction="none"))
        return torch.cat(values)


def column_of(text: str, names: list[str]) -> int:
    """The candidate that a text names (specification 3): the one that it equals, else the only one that it contains.

    -1 if it names none or several."""
    answer = normalize_title(text)
    equal = [column for column, name in enumerate(names) if name and name == answer]
    if len(equal) == 1:
        return equal[0]
    within = [column for column, name in enumerate(names) if name and name in answer]
    return within[0] if not equal and len(within) == 1 else -1


class TitleAnswerer:
    """A trained model's answer among the candidates: the title that it writes (greedy) or the likeliest one."""

    def __init__(self, model: TitleWriter, score: Score) -> None:
        self.model, self.score = model, score

    def answers(
        self, histories: Sequences, candidates: Int[np.ndarray, "users columns"]
    ) -> Int[np.ndarray, "users"]:
        """The column of each answer; -1 where the text names no candidate."""
        columns = np.full(len(candidates), -1, dtype=np.int64)
        progress = Progress("writing titles", len(columns), "users")
        for start in range(0, len(columns), CHUNK):
            rows = np.arange(start, min(start + CHUNK, len(columns)))
            columns[rows] = self._answers(histories.take(rows), candidates[rows])
            progress.advance(len(rows))
        return columns

    def _answers(self, histories: Sequences, candidates: np.ndarray) -> np.ndarray | list[int]:
        if self.score == "likelihood":
            return self.model.likeliest(histories, candidates)
        texts = self.model.write_titles(histories, candidates)
        names = [[self.model.names[item] for item in row] for row in candidates.tolist()]
        return [column_of(*pair) for pair in zip(texts, names, strict=True)]
