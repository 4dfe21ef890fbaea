"""The history as a list that can be dragged into another order, as a component of Streamlit."""

from collections.abc import Callable
from importlib.resources import files

import streamlit as st

KEY = "history"  # in st.session_state


def read(name: str) -> str:
    """The text of a file of this package."""
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


_component = st.components.v2.component(
    "history", html="<ol></ol>", css=read("history.css"), js=read("history.js")
)


def show_history(titles: list[str], moved: list[bool], on_change: Callable[[], None]) -> None:
    """`titles`, oldest first; `moved` marks those that are not in their original place.

    When an item is dragged, moved by a button or removed, `on_change` is called; `new_order` returns what was done."""
    rows = [{"title": title, "moved": was} for title, was in zip(titles, moved, strict=True)]
    _component(key=KEY, data={"rows": rows}, on_order_change=on_change)


def new_order() -> list[int]:
    """The places that the remaining items had before the change; within its callback only."""
    return [int(place) for place in st.session_state[KEY].order]
