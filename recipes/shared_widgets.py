"""Widgets that all tabs share: whoever moves one moves it for everybody. `streamlit run shared_widgets.py`"""

import time
from typing import Any

import streamlit as st

from server_state import server_state


def share(key: str) -> None:
    # A click sends all that its page shows. What another has replaced within a second is no move of this user.
    replaced = [value for value, when in st.session_state[f"{key} before"] if time.monotonic() - when < 1]
    if st.session_state[key] not in replaced:
        server_state[key] = st.session_state[key]
        st.session_state[f"{key} is mine"] = not replaced  # else the page may show something else by now


@st.fragment  # others are not drawn with it, so that what is being typed there stays
def shared(key: str, start: Any, widget: Any, *arguments: Any) -> None:
    value = server_state.setdefault(key, start)
    before = st.session_state.setdefault(f"{key} before", [])
    if st.session_state.get(key, value) != value:
        before[:] = [*before[-9:], (st.session_state[key], time.monotonic())]
    if not st.session_state.pop(f"{key} is mine", False) or st.session_state[key] != value:
        st.session_state[key] = value  # not as the widget's `value`: each one would make another widget
    widget(*arguments, key=key, on_change=share, args=(key,))


@st.fragment
def summary() -> None:
    place = "outside" if server_state["outside"] else "at the table"
    st.info(f"Guests {place}: {server_state['guests']}. We serve {', '.join(server_state['dishes']) or 'nothing yet'}.")


st.title("Dinner on Friday", anchor=False)
for arguments in (
    ("guests", 6, st.slider, "Guests", 1, 100),
    ("outside", False, st.toggle, "We eat outside"),
    ("dishes", ["Soup"], st.multiselect, "Dishes", ["Soup", "Salad", "Pasta", "Curry", "Pie", "Ice cream"]),
    ("notes", "", st.text_area, "Notes"),
):
    with st.container():  # which keeps its place for it
        shared(*arguments)
summary()
