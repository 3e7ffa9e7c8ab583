"""A history that is drawn above the input that adds to it by assignment."""

import streamlit as st

from server_state import server_state

server_state.setdefault("history", [])
for line in server_state.history:
    st.markdown(line)
if prompt := st.chat_input("Say something"):
    server_state.history = [*server_state.history, f"said: {prompt}."]
