"""A model that answers to all tabs, word by word, until any of them stops it. `streamlit run stream_to_all.py`"""

import threading
import time
from collections.abc import Iterator

import streamlit as st

from server_state import server_state, server_state_lock


def model(question: str) -> Iterator[str]:  # put your own here: whatever gives its answer bit by bit
    for word in f"You ask: “{question}” This is what I can say to it. {'Word by word. ' * 60}".split():
        time.sleep(0.02)
        yield f"{word} "


def answer(number: int, parts: Iterator[str]) -> None:  # in a thread, which outlives its tab; it alone writes this
    try:
        while f"growing {number}" in server_state and (part := next(parts, None)) is not None:
            server_state[f"answer {number}"] = server_state.get(f"answer {number}", "") + part
    finally:
        server_state.pop(f"growing {number}", None)


def ask() -> None:
    with server_state_lock["questions"]:
        questions = server_state["questions"] = [*server_state["questions"], st.session_state["question"]]
        server_state[f"growing {len(questions)}"] = True
    threading.Thread(target=answer, args=(len(questions), model(questions[-1])), daemon=True).start()


def show(number: int) -> None:
    st.markdown(server_state.get(f"answer {number}", "…"))
    if f"growing {number}" in server_state:
        st.button("Stop", key=f"stop {number}", on_click=server_state.pop, args=(f"growing {number}", None))
    else:
        st.empty()  # takes the button's place


for number, question in list(enumerate(server_state.setdefault("questions", []), 1))[-30:]:
    st.chat_message("user").text(question)
    with st.chat_message("assistant"):
        st.fragment(show)(number)  # each word redraws its answer alone
st.chat_input("Ask; everybody reads along", key="question", on_submit=ask)
