"""Who is here, and in which room. Needs `presence.py`, too: `streamlit run who_is_here.py`"""

import random

import streamlit as st

from presence import here

st.set_page_config(page_title="Who is here?", page_icon="👋")
st.session_state.setdefault("name", f"Guest {random.randint(100, 999)}")

st.title("Who is here?", anchor=False)
name = st.text_input("Your name", key="name", max_chars=30).strip() or "Somebody"
room = st.radio("Room", ["Lobby", "Kitchen", "Library"], horizontal=True) or ""
people = here(room, name)

st.metric(f"People in the {room}", len(people))
for one in people.values():
    st.text(f"• {one}")
