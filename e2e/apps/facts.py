"""Looks up in a run what `server_state.py` leans on, by one expression for each: they stand in `streamlit_facts.py`."""

import contextvars
import threading
import types
from typing import Any

import streamlit as st
from streamlit.runtime import Runtime, scriptrunner

from streamlit_facts import FACTS, names_for

ctx = scriptrunner.get_script_run_ctx(suppress_warning=True)
assert ctx is not None
info: Any = Runtime.instance()._session_mgr.get_session_info(ctx.session_id)
seen: Any = st.session_state.get("seen")


def hear(sender: Any, event: Any, **details: Any) -> None:
    if event.name == "SCRIPT_STARTED":
        seen.started.append(scriptrunner.get_script_run_ctx() is seen.ctx)
    elif event.name == "SHUTDOWN":
        seen.shutdown, seen.thread = details, threading.current_thread().name


if seen is None:
    seen = st.session_state.seen = types.SimpleNamespace(ctx=ctx, started=[], hear=hear)
    info.session._scriptrunner.on_event.connect(hear, weak=False)
    st.rerun()
elif hasattr(seen, "shutdown"):
    with st.container():
        seen.in_container = contextvars.copy_context()
    seen.accepted = info.session._client_state is seen.shutdown["client_state"]
    names = names_for(ctx, info.session, seen)
    for name, expression in FACTS.items():
        try:
            result: object = bool(eval(expression, names))
        except Exception as error:
            result = repr(error)
        if result is not True:
            st.markdown(f"missing: {name}: {expression}: {result}")
    st.markdown("all looked up")
st.button("again")
