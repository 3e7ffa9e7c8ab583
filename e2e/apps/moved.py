"""Small habits of apps that come from the peer."""

import streamlit as st

from server_state import server_state, server_state_lock

try:
    server_state.never_set  # noqa: B018
except KeyError:
    st.markdown("no such key.")
st.markdown(f"None is there: {None in server_state}.")
if "room" not in server_state_lock:
    server_state_lock["room"]
st.markdown(f"locks: {sorted(server_state_lock)} {len(server_state_lock)} {'room' in server_state_lock}.")
