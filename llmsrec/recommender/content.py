"""Item texts as a ranker that is not trained: TF-IDF of title, brand, category and description.

An item's vector has unit length. A user's vector is the mean of the vectors of the last purchases, also scaled to
unit length, so a score is a cosine.
"""

import numpy as np
from jaxtyping import Float
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import normalize

from llmsrec.data.catalog import Catalog
from llmsrec.data.sequences import Sequences
from llmsrec.ranking.ranker import Ranker

FIELDS = ("title", "brand", "category", "description")


class ContentRanker(Ranker):
    """Scores an item by the cosine of its text and the texts of the last purchases."""

    def __init__(self, vectorizer: TfidfVectorizer, catalog: Catalog, last: int) -> None:
        """`vectorizer` is fitted; items of `catalog` may be others than those that it was fitted to."""
        self.vectorizer, self.last = vectorizer, last
        padding = sparse.csr_matrix((1, len(vectorizer.vocabulary_)), dtype=np.float32)
        self.items = sparse.vstack([padding, vectorizer.transform(item_texts(catalog))]).tocsr()
        self._columns = self.items.T.tocsr()

    @classmethod
    def fit(cls, catalog: Catalog, last: int) -> "ContentRanker":
        """Vocabulary and document frequencies of the texts of `catalog`; `last` purchases count.

        Words of more than half of the items say little and are left out, placeholders of empty texts among them.
        The document `_` is for a catalog without words."""
        vectorizer = TfidfVectorizer(dtype=np.float32, token_pattern=r"(?u)\w+", max_df=0.5)
        return cls(vectorizer.fit([*item_texts(catalog), "_"]), catalog, last)

    def for_catalog(self, catalog: Catalog) -> "ContentRanker":
        """The same vocabulary and document frequencies with the items of another catalog."""
        return ContentRanker(self.vectorizer, catalog, self.last)

    def score(self, histories: Sequences) -> Float[np.ndarray, "users indices"]:
        """Cosines in [0, 1]; 0 for a user or an item without known words."""
        return (self.represent(histories) @ self._columns).toarray()

    def represent(self, histories: Sequences) -> sparse.csr_matrix:
        """A row of word weights for each history: of unit length, or empty without known words."""
        tails = histories.last(self.last)
        rows = np.repeat(np.arange(len(tails)), tails.lengths)
        ones = np.ones(len(rows), dtype=np.float32)
        bought = sparse.csr_matrix((ones, (rows, tails.items)), (len(tails), self.items.shape[0]))
        return normalize(bought @ self.items)


def item_texts(catalog: Catalog) -> list[str]:
    """The texts of each item in one string, in the order of item_index; there is none for the padding."""
    columns = [catalog.items[field].tolist() for field in FIELDS]
    return [" ".join(parts) for parts in zip(*columns, strict=True)]
