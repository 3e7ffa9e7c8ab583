"""The chat and the counter, as an app that several processes run: `connect` stands in the file that is started."""

import os

import streamlit as st

from server_state_store import connect

store = os.environ.get("STATE_STORE", "state.db")
connect(store, name="demo", secret=os.environ.get("STATE_SECRET", ""))
pages = [st.Page("demo_chat.py", title="Chat"), st.Page("demo_counter.py", title="Counter")]
st.navigation(pages).run()
