"""Works with one of many copies of the module, each of which misses something of Streamlit's: `?copy=` says which."""

import importlib

import streamlit as st

copy = importlib.import_module(f"copy_{st.query_params['copy']}")
copy.server_state.setdefault("log", [])
if st.button("write"):
    with copy.server_state_lock["log"]:
        copy.server_state["log"] = copy.server_state["log"] + [1]
        copy.server_state.log.append(2)
if st.button("write what a fragment shows"):
    copy.server_state.x = copy.server_state.pop("x", 0) + 1
st.markdown(f"log is {copy.server_state['log']}.")


@st.fragment
def show() -> None:
    st.markdown(f"x is {copy.server_state.get('x')}.")


show()
