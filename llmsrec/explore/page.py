"""The page itself, run by Streamlit: `llmsrec explore`. The argument is the folder of the trained datasets."""

import random
import sys
import time
from pathlib import Path

import streamlit as st

from llmsrec.core.errors import LLMSRecError
from llmsrec.explore.answers import Answer, Explorer, overlap
from llmsrec.explore.history import new_order, show_history
from llmsrec.explore.lists import NAMES, lists_html
from llmsrec.explore.session import Session

K = 10
FOUND = 6  # products shown for a search
TITLE = "title of the new product"  # in st.session_state


@st.cache_resource(max_entries=4, show_spinner="Loading the models")  # type: ignore[untyped-decorator]
def load(folder: str, changed: float, added: tuple[str, ...]) -> Explorer:
    """`changed` is the time of the recommender's file: a rebuilt dataset is loaded again."""
    if added:
        return load(folder, changed, ()).with_new_items(added)
    return Explorer.load(Path(folder))


def main() -> None:
    st.set_page_config(page_title="llmsrec", page_icon="🛒", layout="wide")
    st.html("<style>.block-container { padding: 2.5rem 2rem 1rem; max-width: 1500px; }</style>")
    artifacts = Path(sys.argv[1])
    trained = {file.parents[1].name: file for file in artifacts.glob("*/recommender/config.json")}
    if not trained:
        st.error(f"{artifacts.resolve()} holds no trained dataset: run `make run` first.")
        return
    with st.sidebar:
        st.title("llmsrec")
        name = st.selectbox("Dataset", sorted(trained))
    changed = trained[name].stat().st_mtime
    key = f"{name} of {changed}"
    session: Session = st.session_state.get(key, Session())
    try:
        explorer = load(str(artifacts / name), changed, tuple(session.added))
    except LLMSRecError as error:
        st.error(str(error))
        return
    if key not in st.session_state:
        st.session_state[key] = session
        session.take(explorer.shopper(next(iter(explorer.test_rows))))
    with st.sidebar:
        choose(explorer, session)
    show(explorer, session)


def choose(explorer: Explorer, session: Session) -> None:
    """Ways to fill the history: a shopper of the test set, a search, a new product."""
    users = list(explorer.test_rows)
    st.button(
        "Take a random shopper",
        on_click=lambda: take(explorer, session, random.choice(users)),
        width="stretch",
    )
    user_id = st.text_input("or the shopper with this id", placeholder=users[0]).strip()
    st.button("Take", on_click=take, args=(explorer, session, user_id), disabled=not user_id)
    if session.error:
        st.error(session.error)
        session.error = ""
    text = st.text_input("Search products by title", placeholder="words of a title")
    for item_id in explorer.search(text, FOUND) if text.strip() else ():
        st.button(
            f"+ {explorer.title(item_id)}",
            key=f"add {item_id}",
            on_click=session.add,
            args=(item_id, explorer.recommender.fitted.latest),
            width="stretch",
        )
    with st.form("new product", clear_on_submit=True):
        st.text_input(
            "Add a product that the shop does not have", key=TITLE, placeholder="its title"
        )
        st.form_submit_button("Add", on_click=lambda: session.add_product(st.session_state[TITLE]))
    for title in session.added:
        st.caption(f"Added: {title}")
    if session.added:
        st.button("Remove the added products", on_click=session.remove_products)


def take(explorer: Explorer, session: Session, user_id: str) -> None:
    try:
        session.take(explorer.shopper(user_id))
    except LLMSRecError as error:
        session.error = str(error)


def show(explorer: Explorer, session: Session) -> None:
    """The history on the left, what the systems make of it on the right."""
    left, right = st.columns([2, 5], gap="medium")
    with left:
        st.subheader("History")
        show_editor(explorer, session)
    with right:
        st.subheader("What the order changes")
        if session.entries:
            show_answers(explorer, session)
        else:
            st.write(
                "Take a shopper or search for products. Then drag the history into another order, or shuffle it, and"
                " see which of the systems notice."
            )


def show_editor(explorer: Explorer, session: Session) -> None:
    if not session.entries:
        st.caption("Nothing was bought yet.")
        return
    titles = [explorer.title(entry.item_id) for entry in session.entries]
    show_history(titles, session.moved, lambda: session.keep(new_order()))
    with st.container(horizontal=True):
        st.button("Shuffle", on_click=session.shuffle)
        moved = any(session.moved)
        st.button("Original order", on_click=session.restore_order, disabled=not moved)
        st.button("Clear", on_click=session.clear)
    if session.next_item:
        st.caption(f"Bought next: {explorer.title(session.next_item)}")


def show_answers(explorer: Explorer, session: Session) -> None:
    start = time.perf_counter()
    now = original = explorer.answer(session.purchases(session.entries))
    if any(session.moved):
        original = explorer.answer(session.purchases(session.original))
    seconds = time.perf_counter() - start
    st.table(comparison(explorer, now, original, session.followed), border="horizontal")
    st.html(lists_html(explorer, now, original, session.next_item, K))
    st.caption(f"Ranked in {1000 * seconds:.0f} ms.")


def comparison(
    explorer: Explorer, now: Answer, original: Answer, followed: dict[str, str]
) -> list[dict[str, str]]:
    """How far this order changes each system's list, and the ranks of the items in `followed` (by column title)."""
    rows = []
    for system in explorer.systems:
        kept = overlap(original.best(system, K), now.best(system, K))
        row = {"System": NAMES[system], f"Best {K} that stay": f"{kept:.0%}"}
        for column, item_id in followed.items():
            (item,) = explorer.recommender.catalog.indices([item_id]).tolist()
            ranks = [answer.rank(system, item) for answer in (original, now)]
            row[column] = " → ".join(str(rank or "bought") for rank in dict.fromkeys(ranks))
        rows.append(row)
    return rows


main()
