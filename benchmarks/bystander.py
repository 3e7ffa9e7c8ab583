"""A part of a page that has nothing to do with what is shared. Copied beside the apps that are measured."""

from __future__ import annotations

import streamlit as st


@st.fragment
def own() -> None:
    st.session_state.mine = st.session_state.get("mine", 0) + st.button("mine")
    st.markdown(f"mine is {st.session_state.mine}.")
