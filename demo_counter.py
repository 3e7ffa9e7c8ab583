"""A counter and a slider that all tabs share. Open it in two: `streamlit run demo_counter.py`."""

import streamlit as st

from server_state import server_state, server_state_lock

st.set_page_config(page_title="Shared counter", page_icon="🔢")
st.title("Shared counter", anchor=False)


# Callbacks run before the script does, so that what is drawn is the new value.
def add(amount: int) -> None:
    with server_state_lock["count"]:  # nobody else may change it between the read and the write
        server_state["count"] += amount


def reset() -> None:
    server_state["count"] = 0


def share_level() -> None:
    server_state["level"] = st.session_state["level"]


# Each part is a fragment that reads what it shows: a click on "Increment" redraws the counter of all tabs, and leaves
# the slider alone that somebody else is dragging.
@st.fragment
def counter() -> None:
    st.metric("Count", server_state.setdefault("count", 0))
    minus, plus, zero = st.columns(3)
    minus.button("Decrement", on_click=add, args=(-1,))
    plus.button("Increment", on_click=add, args=(1,), type="primary")
    zero.button("Reset", on_click=reset)


@st.fragment
def level() -> None:
    shared = server_state.setdefault("level", 50)
    if st.session_state.get("level") != shared:
        st.session_state["level"] = shared  # before the slider is drawn, for it keeps what its own user chose
    st.slider("Level", 0, 100, key="level", on_change=share_level)
    st.caption(f"Everybody's level is {shared}.")


counter()
level()
# The three buttons stand in one row on a phone, too, where Streamlit would put columns below each other.
st.html("<style>[data-testid=stHorizontalBlock] > div {flex: none; width: auto; min-width: 0}</style>")
