"""A dictionary that asks Streamlit to rerun all others at each write: the least that a write can cost."""

from __future__ import annotations

from typing import Any

from streamlit.runtime import get_instance
from streamlit.runtime.scriptrunner import get_script_run_ctx


class State(dict[str, Any]):
    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        context = get_script_run_ctx()
        sessions = [info.session for info in get_instance()._session_mgr.list_sessions()]
        others = [session for session in sessions if context is None or session.id != context.session_id]
        if others:
            others[0]._event_loop.call_soon_threadsafe(rerun, others)


def rerun(sessions: list[Any]) -> None:
    for session in sessions:
        session.request_rerun(session._client_state)


server_state = State()
