"""A choice of several whose default is the shared value."""

import streamlit as st

from server_state import server_state

COLOURS = ["red", "green", "blue", "жёлтый", "🟣", "white", "black"]
server_state.setdefault("chosen", [])
server_state.chosen = st.multiselect("Colours", COLOURS, default=server_state.chosen)
st.markdown(f"chosen: {' '.join(server_state.chosen)}.")
