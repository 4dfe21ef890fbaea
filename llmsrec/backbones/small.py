"""The small backbone: a Llama and its tokenizer, trained on the texts of the catalog.

It uses no purchases: histories are random items on random days, so nothing leaks. Two tasks are trained. Writing: the
next token of descriptions and prompts. Recall: the state at the end of a history's prompt, where the student has its
read-out, is mapped linearly to the last items of the history, and the state of an item's prompt to the item, each
among all items of the step.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from llmsrec.core.progress import Progress
from llmsrec.data.catalog import Catalog
from llmsrec.data.sequences import Sequences
from llmsrec.llm.backbone import BackboneConfig
from llmsrec.llm.padding import right_pad
from llmsrec.llm.prompts import (
    HIST,
    ITEM_END,
    ITEM_START,
    USER_END,
    USER_START,
    PromptBuilder,
    Prompts,
    PromptShape,
    plain_prompts,
)
from llmsrec.training.seeding import generator, seed_torch

BOS, EOS, UNKNOWN = "<s>", "</s>", "<unk>"
DESCRIPTION_TOKENS = 256  # longer descriptions are cut
WINDOW = 10  # longest random history
RECALLED = 3  # last items of a history that are recalled
TOKENS_PER_HISTORY = 128  # estimate
FIRST_DAY, LAST_DAY = 10_000, 20_000  # 1997 to 2024, the dates of random histories


def build_small(catalog: Catalog, config: BackboneConfig, folder: Path) -> dict[str, float]:
    """Train tokenizer and model and save both to `folder` in Hugging Face layout; returns the mean last losses."""
    seed_torch(config.seed)
    tokenizer = train_tokenizer(catalog, config.vocabulary_size)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.hidden_size,
            intermediate_size=4 * config.hidden_size,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            max_position_embeddings=config.max_positions,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            tie_word_embeddings=True,
        )
    )
    report = _train(model, _Sampler(catalog, tokenizer), config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return report


def train_tokenizer(catalog: Catalog, size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE, which encodes any text, with the phrases of prompts as single tokens."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[UNKNOWN, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    items = catalog.items
    core.train_from_iterator([*items["title"], *items["description"]], trainer)
    core.add_tokens([AddedToken(text, normalized=False) for text in _phrases()])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token=BOS, eos_token=EOS, unk_token=UNKNOWN
    )


def _phrases() -> list[str]:
    """Phrases that every prompt repeats; as single tokens they shorten prompts."""
    days = [f"{number:02}" for number in range(1, 32)]
    return [
        *(USER_START, USER_END, ITEM_START, ITEM_END, "; "),
        *(f"[{number}] " for number in range(1, 21)),
        *(f"{year}/" for year in range(1996, 2040)),
        *(f"{day}/" for day in days[:12]),
        *(f"{day} " for day in days),
    ]


class _Sampler:
    """Draws the inputs of a step: random histories and descriptions of items."""

    def __init__(self, catalog: Catalog, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer, self.items = tokenizer, catalog.items
        self.prompts = PromptBuilder(tokenizer, catalog.titles, PromptShape(WINDOW, 48, 1024))

    def histories(self, count: int, draws: np.random.Generator) -> Sequences:
        """Histories of two to `WINDOW` distinct items on random days."""
        lengths = draws.integers(2, WINDOW + 1, size=count)
        most = min(WINDOW, len(self.items))
        rows = [
            1 + draws.choice(len(self.items), size=min(int(length), most), replace=False)
            for length in lengths
        ]
        days = [np.sort(draws.integers(FIRST_DAY, LAST_DAY, size=len(row))) for row in rows]
        times = np.concatenate(days) * 86_400_000
        offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
        return Sequences(offsets.astype(np.int64), np.concatenate(rows), times)

    def descriptions(self, count: int, draws: np.random.Generator) -> list[list[int]]:
        """The token ids of title, brand, category and description of random items."""
        texts = []
        for row in self.items.iloc[draws.integers(len(self.items), size=count)].to_dict("records"):
            details = ". ".join(
                filter(None, (row[name] for name in ("brand", "category", "description")))
            )
            texts.append(f'{ITEM_START}"{row["title"]}". {details}')
        token_ids = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        bos, eos = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        return [[bos, *tokens, eos][:DESCRIPTION_TOKENS] for tokens in token_ids]


class _Pretraining:
    """The model with the linear heads of recall. Placeholders hold the mean token vectors of titles."""

    def __init__(self, model: LlamaForCausalLM, sampler: _Sampler) -> None:
        self.model, self.prompts = model, sampler.prompts
        self.eos = sampler.tokenizer.eos_token_id
        size = model.config.hidden_size
        self.user_heads = torch.nn.ModuleList(torch.nn.Linear(size, size) for _ in range(RECALLED))
        self.item_head = torch.nn.Linear(size, size)
        titles = sampler.prompts.titles
        longest = max(len(title) for title in titles)
        self.titles = torch.tensor([title + [-1] * (longest - len(title)) for title in titles])

    def parameters(self) -> list[torch.nn.Parameter]:
        modules = (self.model, self.user_heads, self.item_head)
        return [parameter for module in modules for parameter in module.parameters()]

    def losses(
        self, histories: Sequences, descriptions: list[list[int]], *, noise: bool
    ) -> tuple[Tensor, Tensor]:
        """The losses of writing and recall. With `noise` placeholders hold noise, so that titles must be read."""
        items = np.unique(histories.items)
        item_vectors = self._item_vectors(torch.from_numpy(items)).detach()
        user_states, user_loss = self._run(self.prompts.users(histories), noise)
        item_states, item_loss = self._run(self.prompts.items(items), noise)
        _, description_loss = self._run(plain_prompts(descriptions), noise)
        columns = torch.from_numpy(np.searchsorted(items, histories.items))
        ends = torch.from_numpy(histories.offsets[1:])
        lengths = torch.from_numpy(histories.lengths)
        scores = self.item_head(item_states) @ item_vectors.T
        recall = [functional.cross_entropy(scores, torch.arange(len(items)))]
        for back, head in enumerate(self.user_heads, start=1):
            long_enough = lengths >= back
            scores = head(user_states[long_enough]) @ item_vectors.T
            recall.append(functional.cross_entropy(scores, columns[ends[long_enough] - back]))
        return user_loss + item_loss + description_loss, torch.stack(recall).mean()

    def _run(self, prompts: Prompts, noise: bool) -> tuple[Tensor, Tensor]:
        """The states at the ends of the prompts, and the mean loss of their next tokens."""
        lengths = prompts.lengths
        is_token = np.arange(int(lengths.max())) < lengths[:, None]
        tokens = torch.from_numpy(right_pad(prompts.tokens, is_token))
        embedded = self._embed(tokens, prompts, noise)
        states = self.model.model(inputs_embeds=embedded).last_hidden_state
        next_tokens = tokens[:, 1:]
        mask = torch.from_numpy(is_token)[:, 1:] & (next_tokens >= 0)
        logits = self.model.lm_head(states[:, :-1][mask])
        ends = states[torch.arange(len(lengths)), torch.from_numpy(lengths - 1)]
        return ends, functional.cross_entropy(logits, next_tokens[mask])

    def _embed(self, tokens: Tensor, prompts: Prompts, noise: bool) -> Tensor:
        """Item placeholders hold title vectors, or noise of the same scale; soft tokens are the end-of-text token."""
        table = self.model.get_input_embeddings().weight
        vectors = self._title_vectors(torch.from_numpy(prompts.items))
        if noise:
            vectors = torch.randn_like(vectors) * vectors.detach().square().mean().sqrt()
        embedded = table[tokens.clamp(min=0)]
        embedded = embedded.masked_scatter((tokens == HIST)[:, :, None], vectors)
        return torch.where((tokens < HIST)[:, :, None], table[self.eos], embedded)

    def _title_vectors(self, items: Tensor) -> Tensor:
        """The mean token vector of each title."""
        table, title = self.model.get_input_embeddings().weight, self.titles[items]
        is_token = title >= 0
        total = (table[title.clamp(min=0)] * is_token[:, :, None]).sum(dim=1)
        return total / is_token.sum(dim=1, keepdim=True)

    def _item_vectors(self, items: Tensor) -> Tensor:
        """Title vectors, centered and normalised: the targets of recall."""
        vectors = self._title_vectors(items)
        return functional.layer_norm(vectors - vectors.mean(dim=0), vectors.shape[1:])


def _train(model: LlamaForCausalLM, sampler: _Sampler, config: BackboneConfig) -> dict[str, float]:
    pretraining = _Pretraining(model, sampler)
    parameters = pretraining.parameters()
    optimizer = torch.optim.AdamW(
        parameters, lr=config.learning_rate, betas=(0.9, 0.95), weight_decay=0.01
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _warmup_cosine(config.steps))
    progress = Progress("backbone", config.steps, "steps")
    count = max(2, config.batch_tokens // TOKENS_PER_HISTORY)
    losses: list[tuple[float, float]] = []
    for step in range(config.steps):
        draws = generator(config.seed, step)
        histories = sampler.histories(count, draws)
        descriptions = sampler.descriptions(count // 2, draws)
        writing, recall = pretraining.losses(histories, descriptions, noise=step % 2 == 0)
        optimizer.zero_grad()
        (writing + recall).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        losses.append((writing.item(), recall.item()))
        progress.advance(note=f"writing {losses[-1][0]:.2f}  recall {losses[-1][1]:.2f}")
    writing, recall = np.mean(losses[-20:], axis=0).tolist()
    return {"writing_loss": writing, "recall_loss": recall}


def _warmup_cosine(steps: int) -> Callable[[int], float]:
    """Learning rate factors: linear warm-up in 5% of the steps, times a cosine decay to a tenth."""
    warmup = max(1, steps // 20)
    return lambda step: (
        min(1.0, (step + 1) / warmup)
        * (0.1 + 0.9 * 0.5 * (1 + np.cos(np.pi * step / max(1, steps))))
    )
