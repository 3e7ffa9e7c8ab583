"""What people do on every run, and two idle tabs must bear."""

import time
from dataclasses import dataclass

import streamlit as st

from server_state import server_state, server_state_lock


@dataclass(frozen=True)
class User:
    name: str


me = st.query_params.get("me", "nobody")
what = st.query_params["what"]
if what == "heartbeat":
    with server_state_lock["users"]:
        server_state.setdefault("users", {})[me] = {"last_seen": time.time()}
        online = sorted(server_state["users"])
elif what == "unlocked heartbeat":
    server_state.setdefault("users", {})[me] = {"last_seen": time.time()}
    online = sorted(server_state["users"])
elif what == "toggle":
    flags = server_state.setdefault("flags", {})
    with server_state_lock["flags"]:
        if flags.get("on") != st.toggle("On", key="on"):
            flags["on"] = st.session_state["on"]
            flags["by"] = me
    online = [str(flags["on"])]
elif what == "list":
    visits = server_state.setdefault("visits", [])
    visits.append(me)
    online = [str(len(visits) > 0)]
elif what == "equal":
    server_state.setdefault("users", {})["Ada"] = User("Ada")
    online = sorted(server_state["users"])
elif what == "frame":
    import pandas as pd

    index = pd.date_range("2024-01-01", periods=48, freq="h")
    server_state["frame"] = pd.DataFrame({"price": range(48)}, index=index)
    online = [str(server_state["frame"].loc["2024-01-02"].index.month.max())]
st.markdown(f"online: {' '.join(online)}.")
