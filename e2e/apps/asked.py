"""Says of each of its runs whether it is ours alone, which a user had no part in."""

import time

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from server_state import server_state


@st.fragment
def slow() -> None:
    st.button("in the fragment")
    time.sleep(0.5)


server_state.setdefault("n", 0)
st.slider("Level", 0, 100, value=50)
st.text_input("Name", "Ada")
st.multiselect("Colours", ["red", "green", "blue"], default=["green"])
st.button("add", on_click=lambda: server_state.update(n=server_state["n"] + 1))
slow()
cause = get_script_run_ctx()._server_state.cause  # type: ignore[union-attr]
st.markdown(f"n is {server_state['n']}: ours {cause.is_ours}, link {cause.depth}.")
