"""Random histories and titles with the lengths of Amazon's, a tokenizer of their words, and students around a Llama."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaModel, PreTrainedTokenizerFast

from llmsrec.core.config import PARAMS, from_mapping, load_section, read_section
from llmsrec.data.catalog import COLUMNS, Catalog
from llmsrec.data.sequences import Sequences
from llmsrec.data.splits import Splits
from llmsrec.llm.backbone import Backbone
from llmsrec.llm.prompts import ITEM_END, ITEM_START, USER_END, USER_START
from llmsrec.sequential.sasrec import SASRec
from llmsrec.sequential.trainer import TeacherConfig
from llmsrec.student.config import StudentConfig
from llmsrec.student.trainer import StudentTrainer, new_student

USERS, ITEMS = 600, 1_500
WORDS, DAY = 4_000, 86_400_000


def synthetic_histories(users: int, items: int, seed: int = 0) -> Sequences:
    """Log-normal lengths: mean about 8, median 6, some beyond 100."""
    draws = np.random.default_rng(seed)
    lengths = np.clip(draws.lognormal(1.8, 0.65, users).astype(np.int64), 4, 300)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    bought = 1 + (draws.random(offsets[-1]) ** 2 * items).astype(np.int64)
    return Sequences(offsets, bought, np.sort(draws.integers(12_000, 19_000, offsets[-1])) * DAY)


def synthetic_splits(seed: int = 0) -> Splits:
    """Such histories, all for training, and titles of 5 to 45 words, mean about 18."""
    histories, draws = synthetic_histories(USERS, ITEMS, seed), np.random.default_rng((seed, 1))
    sizes = np.clip(draws.lognormal(2.75, 0.5, ITEMS).astype(np.int64), 5, 45)
    titles = [" ".join(f"w{word}" for word in draws.integers(0, WORDS, size)) for size in sizes]
    frame = pd.DataFrame(
        {"item_index": np.arange(1, ITEMS + 1), "item_id": titles, "title": titles}
    )
    catalog = Catalog(frame.reindex(columns=COLUMNS, fill_value=""))
    users = [f"u{row}" for row in range(USERS)]
    return Splits(catalog, users, histories, histories.lengths, {}, {}, {})


def word_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of words, numbers and marks: a prompt has the same ids tokenised whole or in pieces."""
    phrases = " ".join([USER_START, USER_END, ITEM_START, ITEM_END, '"[];/'])
    split = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation("isolated")]
    )
    fixed = {word for word, _ in split.pre_tokenize_str(phrases)}
    numbers = {str(number) for number in (*range(1, 11), *range(1990, 2030))}
    days = {f"{day:02d}" for day in range(1, 32)}
    words = sorted({*fixed, *numbers, *days, *(f"w{word}" for word in range(WORDS))})
    core = Tokenizer(
        models.WordLevel({word: index for index, word in enumerate(["?", *words])}, "?")
    )
    core.pre_tokenizer = split
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="?", pad_token="?")


@dataclass(frozen=True)
class Shape:
    """The sizes of a Llama, and the number of users in a step of its student's training."""

    layers: int
    width: int
    heads: int
    key_heads: int
    inner: int
    vocabulary: int
    batch_size: int

    def config(self) -> LlamaConfig:
        """A Llama of this shape."""
        return LlamaConfig(
            vocab_size=self.vocabulary, hidden_size=self.width, num_hidden_layers=self.layers,
            intermediate_size=self.inner, num_attention_heads=self.heads,
            num_key_value_heads=self.key_heads, max_position_embeddings=4096,
        )  # fmt: skip

    @property
    def layer_weights(self) -> int:
        """The number of weights in the matrices of all layers."""
        head = self.width // self.heads
        attention = 2 * self.width * (self.heads + self.key_heads) * head
        return self.layers * (attention + 3 * self.width * self.inner)


def student_trainer(lm: LlamaModel, splits: Splits, changes: dict[str, Any]) -> StudentTrainer:
    """The training of a student around a language model, with the settings of params.yaml but for `changes`."""
    teacher = SASRec(load_section(TeacherConfig, "teacher").network(splits.num_items))
    config = from_mapping(StudentConfig, read_section("student", PARAMS) | changes, str(PARAMS))
    backbone = Backbone(lm.eval().requires_grad_(False), word_tokenizer(), "random")
    model = new_student(config, backbone, teacher.eval(), splits.catalog)
    return StudentTrainer(model, splits, config)
