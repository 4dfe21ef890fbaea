"""The embedded backbone: a small Llama and its tokenizer, built on the catalogue's own text.

It reads no purchase, only what the shop says of its items, so it leaks nothing. Texts come in the shapes of the
prompts, in random order and with random dates, so that the frozen model has met the words it will be asked to read.
"""

from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from llmsrec.data.catalog import Catalog
from llmsrec.progress import Progress
from llmsrec.student.backbone import BackboneConfig
from llmsrec.student.prompts import ITEM_END, ITEM_START, USER_END, USER_START, day_text
from llmsrec.training import generator

BOS, EOS, UNKNOWN = "<s>", "</s>", "<unk>"
ROW = 256  # tokens a training row
FIRST_DAY, LAST_DAY = 10_000, 20_000  # 1997 to 2024, for the dates in made-up prompts


def build_small(catalog: Catalog, config: BackboneConfig, folder: Path) -> dict[str, float]:
    """Train tokenizer and model, save both in Hugging Face layout; returns the last losses."""
    torch.manual_seed(config.seed)
    tokenizer = _train_tokenizer(catalog, config.vocabulary_size)
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
    losses = _train(model, _TextStream(catalog, tokenizer, config.seed), config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return {"first_loss": losses[0], "last_loss": float(np.mean(losses[-20:]))}


def _train_tokenizer(catalog: Catalog, size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE: any text can be read, also of items that come later."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[UNKNOWN, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    fixed = [USER_START + USER_END, ITEM_START + ITEM_END] * 100
    dates = [f"[{day % 10 + 1}] {day_text(day)} " for day in range(FIRST_DAY, LAST_DAY, 3)]
    items = catalog.items
    core.train_from_iterator([*items["title"], *items["description"], *fixed, *dates], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token=BOS, eos_token=EOS, unk_token=UNKNOWN
    )


class _TextStream:
    """Endless token rows: descriptions, item prompts and made-up user prompts of random items."""

    def __init__(self, catalog: Catalog, tokenizer: PreTrainedTokenizerFast, seed: int) -> None:
        self.items, self.tokenizer, self.seed = catalog.items, tokenizer, seed
        self.rest: list[int] = []
        self.documents = 0

    def rows(self, count: int) -> torch.Tensor:
        while len(self.rest) < count * ROW:
            draws = generator(self.seed, self.documents)
            self.documents += 1
            batch = [self._document(draws) for _ in range(64)]
            for tokens in self.tokenizer(batch, add_special_tokens=False)["input_ids"]:
                self.rest += [self.tokenizer.bos_token_id, *tokens, self.tokenizer.eos_token_id]
        taken, self.rest = self.rest[: count * ROW], self.rest[count * ROW :]
        return torch.tensor(taken).view(count, ROW)

    def _document(self, draws: np.random.Generator) -> str:
        kind = draws.integers(3)
        if kind == 0:
            row = self.items.iloc[int(draws.integers(len(self.items)))]
            facts = ". ".join(filter(None, [row["brand"], row["category"], row["description"]]))
            return f'{ITEM_START}"{row["title"]}". {facts}'
        if kind == 1:
            row = self.items.iloc[int(draws.integers(len(self.items)))]
            return f'{ITEM_START}"{row["title"]}" {ITEM_END}'
        rows = draws.integers(len(self.items), size=int(draws.integers(2, 11)))
        days = np.sort(draws.integers(FIRST_DAY, LAST_DAY, size=len(rows)))
        titles = self.items["title"].to_numpy()[rows]
        shown = [
            f'[{number}] {day_text(int(day))} "{title}" '
            for number, (day, title) in enumerate(zip(days, titles, strict=True), start=1)
        ]
        return USER_START + "; ".join(shown) + USER_END


def _train(model: LlamaForCausalLM, stream: _TextStream, config: BackboneConfig) -> list[float]:
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, betas=(0.9, 0.95), weight_decay=0.01
    )
    warm = max(1, config.steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: (
            min(1.0, (step + 1) / warm)
            * (0.1 + 0.9 * 0.5 * (1 + np.cos(np.pi * step / max(1, config.steps))))
        ),
    )
    progress = Progress("backbone", config.steps, "steps")
    losses: list[float] = []
    for _ in range(config.steps):
        tokens = stream.rows(max(1, config.batch_tokens // ROW))
        logits = model(input_ids=tokens).logits
        loss = functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        progress.advance(note=f"loss {losses[-1]:.2f}")
    return losses
