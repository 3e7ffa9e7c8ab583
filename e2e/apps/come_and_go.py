"""Sessions that read, and vanish. `?short=` makes an older Streamlit forget them after a second, not two minutes."""

from typing import Any

import streamlit as st
from streamlit.runtime import get_instance

import census
from server_state import server_state

server_state.get("x")
server_state.setdefault("log", [])
if "short" in st.query_params:
    manager: Any = get_instance()._session_mgr
    storage = manager._session_storage
    if storage._cache.ttl != 1:
        storage._cache = type(storage._cache)(maxsize=128, ttl=1)
census.take()
