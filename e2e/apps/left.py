"""A lock that a script leaves in every way that there is."""

import streamlit as st

from server_state import server_state, server_state_lock

server_state.setdefault("log", [])
st.markdown(f"log is {' '.join(server_state['log'])}.")
clicked = [how for how in ("rerun", "stop", "raise", "pass") if st.button(how)]
for how in clicked:
    with server_state_lock["log"]:
        server_state["log"].append(how)
        if how == "rerun":
            st.rerun()
        if how == "stop":
            st.stop()
        if how == "raise":
            raise ValueError
