"""A value that many tabs show, and a fragment that is each tab's own."""

import streamlit as st

import census
from server_state import server_state

st.markdown(f"value is {server_state.get('value', 0)}.")
if st.button("set"):
    server_state["value"] = server_state.get("value", 0) + 1


@st.fragment
def own() -> None:
    st.session_state.mine = st.session_state.get("mine", 0) + st.button("mine")
    st.markdown(f"mine is {st.session_state.mine}.")


own()
census.take()
