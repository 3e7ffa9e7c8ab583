"""What people do on every run, and two idle tabs must bear: `?what=` says which of it."""

import time
from dataclasses import dataclass

import streamlit as st

from server_state import server_state, server_state_lock


@dataclass(frozen=True)
class User:
    name: str


me = st.query_params.get("me", "nobody")
what = st.query_params["what"]
shown = ""
if what == "heartbeat":
    users = server_state.setdefault("users", {})
    users[me] = {"last_seen": time.time()}
    shown = " ".join(sorted(server_state["users"]))
elif what == "heartbeat under its lock":
    with server_state_lock["locked_users"]:
        server_state.setdefault("locked_users", {})[me] = {"last_seen": time.time()}
        shown = " ".join(sorted(server_state["locked_users"]))
elif what == "heartbeat and again":
    guests = server_state.setdefault("guests", {})
    runs = st.session_state["runs"] = st.session_state.get("runs", 0) + 1
    if runs % 2:
        st.rerun()
    guests[me] = {"last_seen": time.time()}
    shown = " ".join(sorted(server_state["guests"]))
elif what == "toggles":
    flags = server_state.setdefault("flags", {})
    for flag in ("läuft", "done"):
        st.toggle(flag, key=flag)
        if flags.get(flag) != st.session_state[flag]:
            flags[flag] = st.session_state[flag]
elif what == "toggles under their lock":
    with server_state_lock["locked_flags"]:
        locked_flags = server_state.setdefault("locked_flags", {})
        if locked_flags.get("done") != st.toggle("done", key="done"):
            locked_flags["done"] = st.session_state["done"]
elif what == "visits":
    server_state.setdefault("visits", []).extend(st.query_params.get_all("me"))
    shown = f"{len(server_state['visits'])} visits"
elif what == "equal objects":
    server_state.setdefault("people", {})["Ada"] = User("Ada")
    shown = " ".join(sorted(server_state["people"]))
elif what == "frame":
    import pandas as pd

    index = pd.date_range("2024-01-01", periods=48, freq="h")
    server_state["frame"] = pd.DataFrame({"price": range(48)}, index=index)
    shown = f"{server_state['frame'].loc['2024-01-02'].index.month.max()}"
st.markdown(f"shown: {shown}.")
