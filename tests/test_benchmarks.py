"""The two sides of a benchmark compute the same, so that their ratio of times is meaningful."""

import numpy as np

from benchmarks import bulk
from benchmarks.evaluation import RandomDataset, our_ranks, reference_ranks
from benchmarks.student import check, llama
from benchmarks.synthetic import synthetic_splits, word_tokenizer
from llmsrec.llm.prompts import PromptBuilder, PromptShape


def test_the_released_way_and_ours_have_the_same_losses() -> None:
    check(llama(layers=2, width=128, vocabulary=8_000))


def test_a_prompt_tokenises_to_the_same_ids_whole_or_in_pieces() -> None:
    store, tokenizer = synthetic_splits(), word_tokenizer()
    prompts = PromptBuilder(
        tokenizer,
        store.catalog.titles,
        PromptShape(window=10, title_tokens=48, max_prompt_tokens=1024),
    )
    text = f'Product: "{store.catalog.titles[7]}" '
    assert prompts.item_prefix(7) == tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.unk_token_id not in prompts.item_prefix(7)


def test_per_user_and_whole_catalog_ranking_agree() -> None:
    store = RandomDataset(users=40, items=300)
    assert reference_ranks(store, 40) == our_ranks(store, 40)


def test_all_users_at_once_have_the_lists_of_the_reference() -> None:
    parts, histories = bulk.random_parts(items=3_000, words=6), bulk.random_histories(40, 3_000)
    ours, reference = (lists(parts, histories) for lists in (bulk.our_lists, bulk.reference_lists))
    np.testing.assert_array_equal(ours, reference)
