"""The best items of many users: scores in blocks that stay in the processor's cache (docs/decisions/0021).

A score is the product of a user's and an item's dense vector plus that of their sparse ones. The dense vectors are
those of teacher, student and the common words of `content`, the sparse ones those of its other words. The weights of
the parts are in the item vectors. The lists are those of sorting all scores; only items whose scores differ by no more
than the rounding of float32 can be in another order than by HybridRanker.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy import sparse
from torch import Tensor

from llmsrec.bulk.top_lists import Lists, TopLists
from llmsrec.data.sequences import Sequences
from llmsrec.recommender.fitted import Parts
from llmsrec.recommender.hybrid import Weights
from llmsrec.training.checkpoints import fingerprint

USERS, ITEMS = 256, 2048  # of a block: 2 MB of scores
# A dense column costs as much as this many products in the sparse part for each pair of user and item (measured).
COLUMN_COST = 1 / 512


@dataclass(frozen=True)
class UserVectors:
    """One row for each user."""

    dense: Float[np.ndarray, "users size"]
    words: sparse.csr_matrix


class BulkRanker:
    """A recommender's parts with their weights; a part of weight 0 is not computed. Ranks on all threads of torch."""

    def __init__(self, parts: Parts, weights: Weights) -> None:
        """Raises FloatingPointError where an item vector is not finite."""
        self.parts, self.weights = parts, {name: w for name, w in weights.items() if w}
        tables = {"teacher": parts.teacher.item_vectors, "student": parts.student.item_vectors}
        dense = [
            np.float32(self.weights[name]) * table.cpu().numpy()
            for name, table in tables.items()
            if name in self.weights
        ]
        words = sparse.csr_matrix((len(parts.student.item_vectors), 0), dtype=np.float32)
        if "content" in self.weights:
            words = parts.content.items * np.float32(self.weights["content"])
        self.common = _common_words(words, parts.content.last)
        self.dense = np.concatenate([*dense, words[:, self.common].toarray()], axis=1)
        self.words = words[:, ~self.common]
        _check_finite(self.dense, "item")

    @property
    def digest(self) -> str:
        """A hash of all weights and vectors that the lists depend on, except for those of the language model."""
        student = self.parts.student.model
        models = student.config, student.teacher.digest, student.backbone.digest
        heads = [tensor.cpu().numpy() for tensor in student.heads.state_dict().values()]
        words = self.words.indptr, self.words.indices, self.words.data
        return fingerprint(*models, *heads, self.dense, *words)

    @torch.no_grad()
    def represent(self, histories: Sequences) -> UserVectors:
        """The vectors of the parts for each history. Raises FloatingPointError where one is not finite."""
        dense = [np.empty((len(histories), 0), dtype=np.float32)]
        if "teacher" in self.weights:
            dense.append(self.parts.teacher.user_vectors(histories))
        if "student" in self.weights:
            dense.append(self.parts.student.represent_users(histories).cpu().numpy())
        words = sparse.csr_matrix((len(histories), 0), dtype=np.float32)
        if "content" in self.weights:
            words = self.parts.content.represent(histories)
        dense.append(words[:, self.common].toarray())
        users = UserVectors(np.concatenate(dense, axis=1), words[:, ~self.common])
        _check_finite(users.dense, "user")
        return users

    def top(self, users: UserVectors, histories: Sequences, k: int) -> Lists:
        """The best `k` items of each user that are not in the history, equal scores by index.

        A block runs on one thread, so the number of threads changes no bit of the result."""
        starts = range(0, len(histories), USERS)
        blocks = [np.arange(start, min(start + USERS, len(histories))) for start in starts]
        threads, limit = torch.get_num_threads(), torch.set_num_threads
        try:
            with ThreadPoolExecutor(threads, initializer=limit, initargs=(1,)) as pool:
                lists = list(pool.map(lambda rows: self._block(users, histories, rows, k), blocks))
        finally:
            torch.set_num_threads(threads)
        items, scores = zip(*lists, strict=True)
        return np.concatenate(items), np.concatenate(scores)

    @cached_property
    def _item_blocks(self) -> list[tuple[int, Tensor, sparse.csr_matrix]]:
        """The index of the first item, and the vectors, of each block."""
        starts, dense = range(1, len(self.dense), ITEMS), torch.from_numpy(self.dense)
        return [
            (start, dense[start : start + ITEMS], self.words[start : start + ITEMS])
            for start in starts
        ]

    def _block(
        self, users: UserVectors, histories: Sequences, rows: Int[np.ndarray, "rows"], k: int
    ) -> Lists:
        user_dense, user_words = torch.from_numpy(users.dense[rows].T), users.words[rows].T.tocsr()
        seen = histories.take(rows)
        order = np.argsort(seen.items, kind="stable")
        bought, buyers = seen.items[order], seen.row_indices[order]
        lists, buffer = TopLists(len(rows), k), np.empty((ITEMS, len(rows)), dtype=np.float32)
        for start, dense, words in self._item_blocks:
            scores = buffer[: len(dense)]
            (words @ user_words).toarray(out=scores)
            block = torch.from_numpy(scores)
            torch.addmm(block, dense, user_dense, out=block)
            inside = slice(*np.searchsorted(bought, [start, start + len(dense)]))
            scores[bought[inside] - start, buyers[inside]] = -np.inf
            lists.add(scores, start)
        return lists.lists()


def _common_words(words: sparse.csr_matrix, last: int) -> Bool[np.ndarray, "words"]:
    """Whether each word is in so many pairs of user and item that a dense column is faster."""
    share = np.bincount(words.indices, minlength=words.shape[1]) / words.shape[0]
    return share * np.minimum(1, last * share) > COLUMN_COST


def _check_finite(vectors: Float[np.ndarray, "rows size"], kind: str) -> None:
    rows = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(rows):
        raise FloatingPointError(f"the {kind} vector of row {rows[0]} is not finite")
