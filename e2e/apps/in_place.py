"""A list that is added to in place: without a lock, and under it."""

import streamlit as st

from server_state import server_state, server_state_lock

server_state.setdefault("log", [])
if st.button("unlocked"):
    server_state.log.append("u")
if st.button("locked"):
    with server_state_lock["log"]:
        server_state.log.append("l")
        st.rerun()
st.markdown(f"log is {''.join(server_state.log)}.")
