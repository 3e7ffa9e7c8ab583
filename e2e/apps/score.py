"""A score above its button, and a message below it that stays."""

import streamlit as st

from server_state import server_state

if "score" not in server_state:
    server_state.score = 0
st.markdown(f"score is {server_state.score}.")
if st.button("Hit"):
    server_state.score += 1
if st.button("Save"):
    server_state.saved = server_state.get("saved", 0) + 1
    st.success("Well done.")
st.markdown(f"saved {server_state.get('saved', 0)} times.")
