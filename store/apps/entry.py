"""What is started: it connects, and runs the page that a test names."""

import os

import streamlit as st

from server_state_store import connect

connect(os.environ["STATE_STORE"], name=os.environ["STATE_NAME"], secret="secret")
st.navigation([st.Page("page.py")], position="hidden").run()
