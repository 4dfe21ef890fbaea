"""Systems that count and train nothing: popularity, a Markov chain, and item neighbours."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import sparse
from torch import nn

from llmsrec.core.config import Amount, Count
from llmsrec.data.sequences import Sequences
from llmsrec.evaluation import baselines
from llmsrec.ranking.ranker import Ranker
from llmsrec.systems.system import Stage, TrainingInput


class CountingSystem(ABC):
    """A system that counts purchases and has nothing to train."""

    def network(self, inputs: TrainingInput) -> nn.Module:
        """An empty network."""
        return nn.Module()

    def stages(self, network: nn.Module, inputs: TrainingInput) -> Iterator[Stage]:
        """No training."""
        return iter(())

    @abstractmethod
    def model(self, network: nn.Module, inputs: TrainingInput) -> Ranker: ...


@dataclass(frozen=True)
class Popularity(CountingSystem):
    """How often an item was bought in training."""

    def model(self, network: nn.Module, inputs: TrainingInput) -> Ranker:
        return baselines.Popularity(inputs.splits)


@dataclass(frozen=True)
class Markov(CountingSystem):
    """How often an item directly followed the last one; `ordered: false` counts on shuffled histories."""

    ordered: bool

    def model(self, network: nn.Module, inputs: TrainingInput) -> Ranker:
        train = inputs.splits.train
        shuffled = train.shuffled(np.random.default_rng(inputs.seed))
        return baselines.MarkovChain(inputs.splits, train if self.ordered else shuffled)


@dataclass(frozen=True)
class ItemKNN(CountingSystem):
    """The cosine of two items' buyers, summed over the items of the history (specification 9).

    `shrink` is added to the denominator, so that a few shared buyers prove little. An item keeps its `neighbours` most
    similar items; the `last` purchases of the history count, or all."""

    neighbours: Count
    shrink: Amount
    last: Count | None

    def model(self, network: nn.Module, inputs: TrainingInput) -> Ranker:
        columns = inputs.splits.num_items + 1
        similar = similarities(bought(inputs.splits.train, columns), self.shrink)
        return NeighbourRanker(nearest(similar, self.neighbours), self.last)


class NeighbourRanker:
    """Scores are sums over the items of the history; row i of `similar` holds the neighbours of item i."""

    def __init__(self, similar: sparse.csr_matrix, last: int | None) -> None:
        self.similar, self.last = similar, last

    def score(self, histories: Sequences) -> Float[np.ndarray, "users indices"]:
        shown = histories if self.last is None else histories.last(self.last)
        scores = bought(shown, self.similar.shape[0]) @ self.similar.T
        return np.asarray(scores.toarray())


def bought(histories: Sequences, columns: int) -> sparse.csr_matrix:
    """A matrix of histories by items: 1 where an item was bought at least once."""
    rows = np.repeat(np.arange(len(histories)), histories.lengths)
    ones = np.ones(len(rows), dtype=np.float32)
    matrix = sparse.csr_matrix((ones, (rows, histories.items)), shape=(len(histories), columns))
    matrix.data[:] = 1
    return matrix


def similarities(owners: sparse.csr_matrix, shrink: float) -> sparse.csr_matrix:
    """Shared buyers over (the geometric mean of both items' buyers + shrink); an item is not its own neighbour."""
    shared = (owners.T @ owners).tocoo()
    buyers = np.sqrt(np.asarray(owners.sum(axis=0)).ravel())
    apart = shared.row != shared.col
    rows, columns = shared.row[apart], shared.col[apart]
    values = shared.data[apart] / (buyers[rows] * buyers[columns] + shrink)
    return sparse.csr_matrix((values.astype(np.float32), (rows, columns)), shape=shared.shape)


def nearest(similar: sparse.csr_matrix, neighbours: int) -> sparse.csr_matrix:
    """The greatest values of each row; ties go to the lower index."""
    rows = np.repeat(np.arange(similar.shape[0]), np.diff(similar.indptr))
    order = np.lexsort((similar.indices, -similar.data, rows))
    place = np.arange(len(rows)) - similar.indptr[rows]
    selected = order[place < neighbours]
    return sparse.csr_matrix(
        (similar.data[selected], (rows[selected], similar.indices[selected])), shape=similar.shape
    )
