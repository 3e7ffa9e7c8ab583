"""Chat rooms. Open it in two tabs: `streamlit run demo_chat.py`."""

import random

import streamlit as st

from server_state import server_state, server_state_lock

st.set_page_config(page_title="Chat", page_icon="💬")
server_state.setdefault("rooms", ["Lobby"])
st.session_state.setdefault("nickname", f"Guest {random.randint(1, 99)}")


def create_room() -> None:
    name = st.session_state["new room"].strip()
    with server_state_lock["rooms"]:
        if name and name not in server_state["rooms"]:
            server_state["rooms"] = [*server_state["rooms"], name]
    if name:
        st.session_state["room"] = name
    st.session_state["new room"] = ""


def send(room: str, nickname: str) -> None:
    with server_state_lock[f"messages in {room}"]:
        server_state.setdefault(f"messages in {room}", []).append((nickname, st.session_state["message"]))


@st.fragment  # a new message redraws this list alone, whatever the others are typing
def messages(room: str, nickname: str) -> None:
    with st.container(height=400):
        for author, text in server_state.get(f"messages in {room}", []):
            with st.chat_message("user" if author == nickname else "assistant"):
                st.markdown(f"**{author}**  \n{text}")


with st.sidebar:
    nickname = st.text_input("Nickname", key="nickname", max_chars=30) or "Guest"
    room = st.radio("Room", server_state["rooms"], key="room")
    st.text_input("New room", key="new room", on_change=create_room, max_chars=30)

st.header(room)
messages(room, nickname)
st.chat_input(f"Write to {room}", key="message", on_submit=send, args=(room, nickname))
