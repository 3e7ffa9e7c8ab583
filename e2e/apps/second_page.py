"""The other one, which only shows it."""

import streamlit as st

from server_state import server_state

st.markdown(f"x is {server_state.get('x', 0)}. query is {st.query_params.get('q')}.")
