# mypy: allow-untyped-defs
"""What an ASGI server or `streamlit run` starts: it connects before anybody comes."""

from contextlib import asynccontextmanager

import streamlit as st

from server_state_store import connect


@asynccontextmanager
async def lifespan(app):
    connect("state.db")
    yield


app = st.App("app.py", lifespan=lifespan)
