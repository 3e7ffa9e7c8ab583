"""Chat rooms that all tabs share. Open it in two tabs: `streamlit run demo_chat.py`."""

import random

import streamlit as st

from server_state import server_state, server_state_lock

st.set_page_config(page_title="Chat", page_icon="💬")
st.session_state.setdefault("nickname", f"Guest {random.randint(100, 999)}")
FACES = "👩‍🚀 👨‍🍳 👩‍🎨 👨‍🌾 👩‍🔬 👨‍🎤 👩‍🚒 👨‍💻 🧙 🥷 🧝 👸 🤴 🎅 👷 💂".split()


def create_room() -> None:
    name = st.session_state["new room"].strip() or st.session_state["room"]
    with server_state_lock["rooms"]:
        if name not in server_state["rooms"]:
            server_state["rooms"].append(name)
    st.session_state["room"] = name


def send(room: str) -> None:
    with server_state_lock[f"messages in {room}"]:
        history = server_state.setdefault(f"messages in {room}", [])
        history.append((st.session_state["nickname"] or "Guest", st.session_state["message"]))
        del history[: len(history) // 1000 * 500]  # of a thousand, the older half


@st.fragment  # a new message redraws this list alone, whatever the others are typing
def messages(room: str, me: str) -> None:
    history = server_state.get(f"messages in {room}", [])
    people = list(dict.fromkeys(author for author, _ in history))
    first = max(0, len(history) // 100 * 100 - 100)  # in steps, so that the list stays where somebody reads
    with st.container(height=400):
        for author, text in history[first:]:
            face = FACES[people.index(author) % len(FACES)]
            role, mark = ("user", " · :red[**you**]") if author == me else ("other", "")
            st.chat_message(role, avatar=face).markdown(f"**{author}**{mark}  \n{text}")


with st.sidebar:
    me = st.text_input("Nickname", key="nickname", max_chars=30) or "Guest"
    room = st.radio("Room", server_state.setdefault("rooms", ["Lobby"]), key="room")
    with st.form("create", clear_on_submit=True, border=False):
        st.text_input("New room", key="new room", max_chars=30)
        st.form_submit_button("Create", on_click=create_room)

st.header(room, anchor=False)
messages(room, me)
st.chat_input(f"Write to {room}", key="message", on_submit=send, args=(room,))
