"""A chat of which all tabs draw the last ten messages, read under its lock, and a button that appends in place."""

from __future__ import annotations

import time
from pathlib import Path

import bystander
import messages
import settings  # of the server that is measured
import streamlit as st

from server_state import server_state, server_state_lock

with server_state_lock["chat"]:
    if "chat" not in server_state:
        server_state["chat"] = messages.chat("dataclasses", settings.LENGTH)
if st.button("write"):
    new = messages.Message("me", f"value is {Path('next').read_text()}.", time.time())
    begun = time.perf_counter()
    with server_state_lock["chat"]:
        server_state["chat"].append(new)
    took = time.perf_counter() - begun
    Path("took").write_text(str(took))
with server_state_lock["chat"]:
    latest = server_state["chat"][-10:]
for message in latest:
    st.caption(f"{message.user}, {message.at:.0f}")
    st.markdown(message.text)
bystander.own()
