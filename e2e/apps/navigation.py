"""Two pages by `st.navigation`."""

import streamlit as st

st.navigation([st.Page("first_page.py", default=True), st.Page("second_page.py", title="second")]).run()
