"""The embedded backbone: a small Llama and its tokenizer, built on the catalogue's own text.

It reads no purchase, only what the shop says of its items: histories are of random items on random days, so nothing
leaks. It learns two things. To write: the next token of descriptions and prompts. And to read, which a large model
comes with: from the state at a prompt's end, where the student will read, a linear map must tell which items were
shown last, among all items of the step, each known by the state at the end of its own prompt.
"""

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
from llmsrec.training.loop import generator, seed_torch

BOS, EOS, UNKNOWN = "<s>", "</s>", "<unk>"
ROW = 256  # tokens of a description that are read
WINDOW = 10  # purchases of a made-up history
RECALLED = 3  # of them, the newest, must be told at the end
TOKENS_OF_HISTORY = 128  # about
FIRST_DAY, LAST_DAY = 10_000, 20_000  # 1997 to 2024, for the dates in made-up prompts


def build_small(catalog: Catalog, config: BackboneConfig, folder: Path) -> dict[str, float]:
    """Train tokenizer and model, save both in Hugging Face layout; returns the last losses."""
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
    report = _train(model, _Lesson(catalog, tokenizer), config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return report


def train_tokenizer(catalog: Catalog, size: int) -> PreTrainedTokenizerFast:
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
    items = catalog.items
    core.train_from_iterator([*items["title"], *items["description"]], trainer)
    core.add_tokens([AddedToken(text, normalized=False) for text in _phrases()])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token=BOS, eos_token=EOS, unk_token=UNKNOWN
    )


def _phrases() -> list[str]:
    """What every prompt repeats, a token each: shorter prompts take less time."""
    days = [f"{number:02}" for number in range(1, 32)]
    return [
        *(USER_START, USER_END, ITEM_START, ITEM_END, "; "),
        *(f"[{number}] " for number in range(1, 21)),
        *(f"{year}/" for year in range(1996, 2040)),
        *(f"{day}/" for day in days[:12]),
        *(f"{day} " for day in days),
    ]


class _Lesson:
    """What one step reads: made-up histories, the items in them, and some descriptions."""

    def __init__(self, catalog: Catalog, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer, self.items = tokenizer, catalog.items
        self.prompts = PromptBuilder(tokenizer, catalog.titles, PromptShape(WINDOW, 48, 1024))

    def histories(self, count: int, draws: np.random.Generator) -> Sequences:
        """Of different random items, two to `WINDOW` of them, on random days."""
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
        texts = []
        for row in self.items.iloc[draws.integers(len(self.items), size=count)].to_dict("records"):
            facts = ". ".join(
                filter(None, (row[name] for name in ("brand", "category", "description")))
            )
            texts.append(f'{ITEM_START}"{row["title"]}". {facts}')
        found = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        ends = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        return [[ends[0], *tokens, ends[1]][:ROW] for tokens in found]


class _Pupil:
    """The model in training: its slots hold stand-ins for what the student will write there."""

    def __init__(self, model: LlamaForCausalLM, lesson: _Lesson) -> None:
        self.model, self.lesson = model, lesson
        size = model.config.hidden_size
        self.memory = torch.nn.ModuleList(torch.nn.Linear(size, size) for _ in range(RECALLED))
        self.name = torch.nn.Linear(size, size)
        titles = lesson.prompts.titles
        longest = max(len(title) for title in titles)
        self.titles = torch.tensor([title + [-1] * (longest - len(title)) for title in titles])

    def parameters(self) -> list[torch.nn.Parameter]:
        return [*self.model.parameters(), *self.memory.parameters(), *self.name.parameters()]

    def losses(
        self, histories: Sequences, texts: list[list[int]], *, filled: bool
    ) -> tuple[Tensor, Tensor]:
        """Writing and reading; slots that are not `filled` hold noise, so that titles must be read."""
        prompts = self.lesson.prompts
        items = np.unique(histories.items)
        names = self._names(torch.from_numpy(items)).detach()
        ends, written = self._run(prompts.users(histories), filled)
        alone, named = self._run(prompts.items(items), filled)
        _, described = self._run(plain_prompts(texts), filled)
        shown = torch.from_numpy(np.searchsorted(items, histories.items))
        last, lengths = (
            torch.from_numpy(part) for part in (histories.offsets[1:], histories.lengths)
        )
        reading = [functional.cross_entropy(self.name(alone) @ names.T, torch.arange(len(items)))]
        for back, recall in enumerate(self.memory, start=1):
            enough = lengths >= back
            scores = recall(ends[enough]) @ names.T
            reading.append(functional.cross_entropy(scores, shown[last[enough] - back]))
        return written + named + described, torch.stack(reading).mean()

    def _run(self, prompts: Prompts, filled: bool) -> tuple[Tensor, Tensor]:
        """States at the ends, and the loss of each next token."""
        lengths = prompts.lengths
        real = np.arange(int(lengths.max())) < lengths[:, None]
        tokens = torch.from_numpy(right_pad(prompts.tokens, real))
        embedded = self._embedded(tokens, prompts, filled)
        states = self.model.model(inputs_embeds=embedded).last_hidden_state
        after = tokens[:, 1:]
        asked = torch.from_numpy(real)[:, 1:] & (after >= 0)
        logits = self.model.lm_head(states[:, :-1][asked])
        ends = states[torch.arange(len(lengths)), torch.from_numpy(lengths - 1)]
        return ends, functional.cross_entropy(logits, after[asked])

    def _embedded(self, tokens: Tensor, prompts: Prompts, filled: bool) -> Tensor:
        """An item's slot holds its stand-in; a read-out's, the end of a text."""
        table = self.model.get_input_embeddings().weight
        stand_ins = self._stand_ins(torch.from_numpy(prompts.items))
        if not filled:
            stand_ins = torch.randn_like(stand_ins) * stand_ins.detach().square().mean().sqrt()
        embedded = table[tokens.clamp(min=0)]
        embedded = embedded.masked_scatter((tokens == HIST)[:, :, None], stand_ins)
        end = table[self.lesson.tokenizer.eos_token_id]
        return torch.where((tokens < HIST)[:, :, None], end, embedded)

    def _stand_ins(self, items: Tensor) -> Tensor:
        """The mean of a title's tokens."""
        table, title = self.model.get_input_embeddings().weight, self.titles[items]
        real = title >= 0
        total = (table[title.clamp(min=0)] * real[:, :, None]).sum(dim=1)
        return total / real.sum(dim=1, keepdim=True)

    def _names(self, items: Tensor) -> Tensor:
        """What items are told apart by: their stand-ins, without what all have in common."""
        stand_ins = self._stand_ins(items)
        return functional.layer_norm(stand_ins - stand_ins.mean(dim=0), stand_ins.shape[1:])


def _train(model: LlamaForCausalLM, lesson: _Lesson, config: BackboneConfig) -> dict[str, float]:
    pupil = _Pupil(model, lesson)
    optimizer = torch.optim.AdamW(
        pupil.parameters(), lr=config.learning_rate, betas=(0.9, 0.95), weight_decay=0.01
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
    count = max(2, config.batch_tokens // TOKENS_OF_HISTORY)
    losses: list[tuple[float, float]] = []
    for step in range(config.steps):
        draws = generator(config.seed, step)
        histories = lesson.histories(count, draws)
        texts = lesson.descriptions(count // 2, draws)
        writing, reading = pupil.losses(histories, texts, filled=bool(step % 2))
        optimizer.zero_grad()
        (writing + reading).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(pupil.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append((writing.item(), reading.item()))
        progress.advance(note=f"writing {losses[-1][0]:.2f}  reading {losses[-1][1]:.2f}")
    writing, reading = np.mean(losses[-20:], axis=0).tolist()
    return {"writing_loss": writing, "reading_loss": reading}
