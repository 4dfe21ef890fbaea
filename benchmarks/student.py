"""The student, training and validation: the project's way against that of the released implementation, on one model.

The released way writes and tokenises every prompt anew, pads a batch to its longest prompt, runs the whole causal model
with its head and all hidden states, asks the frozen teacher at each step, and encodes an item as often as it is shown.
It is written out here. Both ways must come to the same loss and the same vectors before anything is timed.
"""

import argparse
import ctypes
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from resource import getpagesize
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Int
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks.figures import Figure, in_own_process, median_seconds, peak_bytes, print_figures
from llmsrec.config import from_mapping, load_section, read_section
from llmsrec.data.catalog import COLUMNS, Catalog
from llmsrec.data.sequences import Sequences
from llmsrec.data.splits import Splits
from llmsrec.student.backbone import Backbone
from llmsrec.student.losses import distillation_loss, retrieval_loss, uniformity_loss
from llmsrec.student.prompts import ITEM_END, ITEM_START, USER_END, USER_START, day_text
from llmsrec.student.ranker import StudentRanker, encode_items
from llmsrec.student.train import StudentConfig, Trainer, new_student
from llmsrec.teacher.sasrec import SASRec
from llmsrec.teacher.train import TeacherConfig
from llmsrec.training import generator

USERS, ITEMS, WORDS = 600, 1_500, 4_000
BATCH, NEGATIVES, WINDOW, DAY = 20, 3, 10, 86_400_000
HISTORY, USER, ITEM = "<HIST>", "<UOUT>", "<IOUT>"
SAME_AS_RELEASED = {
    "batch_size": BATCH, "train_negatives": NEGATIVES, "in_batch": False, "catalogue_negatives": 0,
    "window": WINDOW, "with_user_rep": False, "w_dis": 1.0, "w_uni": 1.0, "distill": "mse",
    "dis_reduction": "mean", "normalize": True, "centred_start": False,
}  # fmt: skip
GOALS = {  # of rates in float32 and in bfloat16, over the released way in float32
    "last_item": {"float32": 3, "bfloat16": 5},
    "auto_regressive": {"float32": 20, "bfloat16": 20},
}


@dataclass(frozen=True)
class Shape:
    layers: int
    width: int
    vocabulary: int
    dtype: str = "float32"


def made_up_store(seed: int = 0) -> Splits:
    """Lengths log-normal, mean about 8; titles of 5 to 45 words, mean about 18, as Amazon's tokenise."""
    draws = np.random.default_rng(seed)
    lengths = np.clip(draws.lognormal(1.8, 0.65, USERS).astype(np.int64), 4, 300)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    items = 1 + (draws.random(offsets[-1]) ** 2 * ITEMS).astype(np.int64)
    times = np.sort(draws.integers(12_000, 19_000, offsets[-1])) * 86_400_000
    sizes = np.clip(draws.lognormal(2.75, 0.5, ITEMS).astype(np.int64), 5, 45)
    titles = [" ".join(f"w{word}" for word in draws.integers(0, WORDS, size)) for size in sizes]
    frame = pd.DataFrame(
        {"item_index": np.arange(1, ITEMS + 1), "item_id": titles, "title": titles}
    )
    catalog = Catalog(frame.reindex(columns=COLUMNS, fill_value=""))
    users = [f"u{row}" for row in range(USERS)]
    return Splits(catalog, users, Sequences(offsets, items, times), lengths, {}, {}, {})


def word_tokenizer() -> PreTrainedTokenizerFast:
    """A word, number or mark is a token: a prompt tokenises to the same ids whole or in pieces."""
    phrases = " ".join([USER_START, USER_END, ITEM_START, ITEM_END, '"[];/'])
    split = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation("isolated")]
    )
    fixed = {word for word, _ in split.pre_tokenize_str(phrases)}
    numbers = [str(number) for number in range(1, 11)] + [
        f"{number:02d}" for number in range(1, 32)
    ]
    years = [str(year) for year in range(1990, 2030)]
    words = sorted({*fixed, *numbers, *years, *(f"w{word}" for word in range(WORDS))})
    core = Tokenizer(
        models.WordLevel({word: place for place, word in enumerate(["?", *words])}, "?")
    )
    core.pre_tokenizer = split
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="?", pad_token="?")


class Plain:
    """The released way, with the heads and the frozen parts of a student of ours."""

    def __init__(self, lm: LlamaForCausalLM, trainer: Trainer, titles: list[str]) -> None:
        self.lm, self.trainer, self.model, self.titles = lm, trainer, trainer.model, titles
        self.tokenizer = word_tokenizer()
        self.tokenizer.add_special_tokens({"additional_special_tokens": [HISTORY, USER, ITEM]})

    def users(self, histories: Sequences) -> Tensor:
        shown = histories.last(WINDOW)
        texts = [self._user_text(shown[row], shown.times(row)) for row in range(len(shown))]
        items = [shown[row] for row in range(len(shown))]
        return self.model.heads.user_head(self._read(texts, items, USER, 0))

    def items(self, items: Int[np.ndarray, "items"]) -> Tensor:
        texts = [f'{ITEM_START}"{self.titles[item]}" {HISTORY}{ITEM_END}{ITEM}' for item in items]
        return self.model.heads.item_head(self._read(texts, list(items[:, None]), ITEM, 1))

    def _user_text(self, items: np.ndarray, times: np.ndarray) -> str:
        entries = [
            f'[{number}] {day_text(int(time) // DAY)} "{self.titles[item]}" {HISTORY}'
            for number, (item, time) in enumerate(zip(items, times, strict=True), start=1)
        ]
        return f"{USER_START}{'; '.join(entries)}{USER_END}{USER}"

    def _read(self, texts: list[str], items: list[np.ndarray], slot: str, token: int) -> Tensor:
        """Slots looked for and filled row by row; all hidden states and all logits, of which one row is read."""
        batch = self.tokenizer(texts, padding=True, return_tensors="pt", add_special_tokens=False)
        ids, heads = batch["input_ids"], self.model.heads
        history, read = self.tokenizer.convert_tokens_to_ids([HISTORY, slot])
        embedded = self.lm.get_input_embeddings()(ids)
        for row, shown in enumerate(items):
            known = self.model.teacher.item_table[torch.from_numpy(shown)]
            embedded[row, ids[row] == history] = heads.item_projector(known)
            embedded[row, ids[row] == read] = heads.soft_tokens[token]
        found = self.lm(
            inputs_embeds=embedded,
            attention_mask=batch["attention_mask"],
            output_hidden_states=True,
        )
        return found.hidden_states[-1][ids == read]

    def loss(self, reads: Int[np.ndarray, "reads"], draws: np.random.Generator) -> Tensor:
        """A prompt for each read-out, one for each of its candidates, and the teacher asked again."""
        trainer, heads = self.trainer, self.model.heads
        owners, targets = trainer.owners[reads], trainer.targets[reads]
        shown = trainer.examples.train.take(owners, trainer.examples.ends()[reads])
        drawn = trainer.negatives.draw(owners, NEGATIVES, draws)
        choices = np.concatenate([targets[:, None], drawn], axis=1)
        users = self.users(shown)
        items = self.items(choices.ravel()).view(*choices.shape, -1)
        distilled = heads.teacher_head(self.model.teacher.represent(shown))
        who = torch.from_numpy(owners)
        return (
            retrieval_loss((items @ users[:, :, None])[..., 0])
            + distillation_loss(users, distilled, normalize=True, reduction="mean")
            + uniformity_loss(users, who)
            + uniformity_loss(distilled, who)
        )

    def step(self, reads: Int[np.ndarray, "reads"], draws: np.random.Generator) -> None:
        loss = self.loss(reads, draws)
        self.trainer.optimizer.zero_grad()
        loss.backward()
        self.trainer.optimizer.step()


def build(shape: Shape, examples: str) -> tuple[Plain, Trainer, Splits]:
    """Both ways around one language model of random weights."""
    torch.manual_seed(0)
    splits = made_up_store()
    lm = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=shape.vocabulary, hidden_size=shape.width, num_hidden_layers=shape.layers,
            intermediate_size=shape.width * 8 // 3, num_attention_heads=shape.width // 64,
            num_key_value_heads=shape.width // 64,
        )
    )  # fmt: skip
    lm.eval().requires_grad_(False).to(getattr(torch, shape.dtype))
    teacher = SASRec(load_section(TeacherConfig, "teacher").network(ITEMS))
    values = read_section("student", Path("params.yaml")) | SAME_AS_RELEASED
    config = from_mapping(StudentConfig, values | {"examples": examples}, "params.yaml")
    backbone = Backbone(lm.model, word_tokenizer(), "random")
    trainer = Trainer(new_student(config, backbone, teacher, splits.catalog), splits, config)
    return Plain(lm, trainer, splits.catalog.titles), trainer, splits


def check(shape: Shape) -> None:
    """A benchmark of two ways that differ says nothing."""
    for examples in ("last_item", "auto_regressive"):
        plain, trainer, _ = build(shape, examples)
        rows = np.arange(4)
        with torch.no_grad():
            ours = trainer.losses(rows, generator(0))["loss"]
            theirs = plain.loss(trainer.examples.reads(rows), generator(0))
        assert abs(ours - theirs) < 1e-4 * abs(theirs), (examples, ours, theirs)


def training(shape: Shape, way: str, examples: str, steps: int) -> dict[str, float]:
    """A released step teaches 20 read-outs; one of ours those of 20 users."""
    plain, trainer, _ = build(shape, examples)
    trainer.model.keep_prefixes(4.0)
    order = generator(1).permutation(len(trainer.owners))

    def step(number: int) -> int:
        if way == "ours":
            trainer.step(number)
            return len(trainer.examples.reads(trainer.batch(number)))
        reads = order[number * BATCH : (number + 1) * BATCH]
        plain.step(reads, generator(2, number))
        return len(reads)

    bytes_held = held(lambda: step(0))
    with FlopCounterMode(display=False) as counter:
        counted = step(1)
    start = time.perf_counter()
    reads = sum(step(number) for number in range(2, 2 + steps))
    rate = reads / (time.perf_counter() - start)
    flops = counter.get_total_flops() / counted
    return {"rate": rate, "flops": flops, "bytes": bytes_held, "matrix": matrix_rate(shape)}


def validation(shape: Shape, way: str, num_items: int, num_users: int) -> dict[str, float]:
    plain, trainer, splits = build(shape, "last_item")
    model, items = trainer.model.eval(), np.arange(1, num_items + 1)
    histories = splits.sequences.take(np.arange(num_users))
    model.keep_prefixes(4.0)

    def encode() -> Tensor:
        if way == "ours":
            return torch.from_numpy(encode_items(model, num_items)[1:])
        size = BATCH * (1 + NEGATIVES)
        parts = [plain.items(items[place : place + size]) for place in range(0, num_items, size)]
        return torch.cat(parts)

    def read(vectors: Tensor) -> Tensor:
        if way == "ours":
            return torch.from_numpy(StudentRanker(model, vectors.numpy()).user_vectors(histories))
        chunks = np.array_split(np.arange(num_users), -(-num_users // BATCH))
        return torch.cat([plain.users(histories.take(rows)) for rows in chunks])

    with torch.no_grad():
        start = time.perf_counter()
        vectors = encode()
        middle = time.perf_counter()
        users = read(vectors)
        end = time.perf_counter()
    return {
        "items/s": num_items / (middle - start),
        "users/s": num_users / (end - middle),
        "seconds": end - start,
        "checksum": float(vectors.abs().sum() + users.abs().sum()),
    }


def matrix_rate(shape: Shape) -> float:
    """FLOPs a second of the layers' largest product: what the hardware gives."""
    dtype = getattr(torch, shape.dtype)
    x, weight = (torch.randn(n, shape.width).to(dtype) for n in (4096, shape.width * 8 // 3))
    seconds = median_seconds(lambda: functional.linear(x, weight), repeats=10)
    return 2 * len(x) * len(weight) * shape.width / seconds


def held(work: Callable[[], Any]) -> int:
    """Bytes that `work` holds at its peak beyond what was there before."""
    ctypes.CDLL(None).malloc_trim(
        0
    )  # what is free must not look held, or the work would reuse it unseen
    before = int(Path("/proc/self/statm").read_text().split()[1]) * getpagesize()
    Path("/proc/self/clear_refs").write_text("5")  # forget the highest so far
    work()
    return peak_bytes() - before


def compare_training(vocabulary: int, examples: str, dtypes: list[str], steps: int) -> list[Figure]:
    exact = Shape(8, 512, vocabulary)
    released = in_own_process(training, exact, "released", examples, steps).result
    print_training("released, float32", released)
    figures = []
    for dtype in dtypes:
        shape = Shape(8, 512, vocabulary, dtype)
        ours = in_own_process(training, shape, "ours", examples, steps * 2).result
        print_training(f"ours, {dtype}", ours)
        name = f"student, {vocabulary // 1000}k words, {examples}, {dtype}"
        goal = GOALS[examples][dtype]
        figures.append(Figure(f"{name}: rate", ours["rate"] / released["rate"], goal))
        figures.append(Figure(f"{name}: peak memory", released["bytes"] / ours["bytes"], 3))
    return figures


def print_training(way: str, found: dict[str, float]) -> None:
    reached = found["rate"] * found["flops"] / found["matrix"]
    print(
        f"    {way:20} {found['rate']:8.2f} read-outs/s  {found['flops'] / 1e9:7.1f} GFLOP each  "
        f"{reached:5.0%} of the matrix rate  {found['bytes'] / 1e6:7,.0f} MB a step",
        flush=True,
    )


def compare_validation(vocabulary: int, dtypes: list[str], items: int, users: int) -> list[Figure]:
    exact = Shape(8, 512, vocabulary)
    released = in_own_process(validation, exact, "released", items, users).result
    print_validation("released, float32", released)
    figures = []
    for dtype in dtypes:
        shape = Shape(8, 512, vocabulary, dtype)
        ours = in_own_process(validation, shape, "ours", items, users).result
        print_validation(f"ours, {dtype}", ours)
        tolerance = 1e-4 if dtype == "float32" else 2e-2
        assert abs(ours["checksum"] / released["checksum"] - 1) < tolerance
        name = f"student, {vocabulary // 1000}k words, {dtype}"
        figures.append(Figure(f"{name}: items/s", ours["items/s"] / released["items/s"], 12))
        figures.append(Figure(f"{name}: validation", released["seconds"] / ours["seconds"], 10))
    return figures


def print_validation(way: str, found: dict[str, float]) -> None:
    print(
        f"    {way:20} {found['items/s']:8.2f} items/s  {found['users/s']:8.2f} users/s  "
        f"{found['seconds']:6.1f} s together",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vocabularies", type=int, nargs="+", default=[32_000, 128_000])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"], help="of ours")
    parser.add_argument("--steps", type=int, default=2, help="timed; twice as many of ours")
    parser.add_argument("--items", type=int, default=80)
    parser.add_argument(
        "--users", type=int, default=130, help="some 1.6 an item, as real stores have"
    )
    args = parser.parse_args()
    check(Shape(2, 128, 8_000))
    figures: list[Figure] = []
    for vocabulary in args.vocabularies:
        print(f"\n8 layers of 512, {vocabulary:,} words, {torch.get_num_threads()} threads")
        for examples in GOALS:
            print(f"  training, {examples}", flush=True)
            figures += compare_training(vocabulary, examples, args.dtypes, args.steps)
        print("  validation", flush=True)
        figures += compare_validation(vocabulary, args.dtypes, args.items, args.users)
    print_figures(figures)


if __name__ == "__main__":
    main()
