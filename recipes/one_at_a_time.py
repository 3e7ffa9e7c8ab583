"""One machine, many users: jobs wait in a queue that everybody sees. `streamlit run one_at_a_time.py`"""

import threading
import time

import streamlit as st

from server_state import server_state, server_state_lock

me = st.session_state.setdefault("me", time.time_ns())


def work(text: str) -> None:  # put your own here, and tell now and then how much of it is done
    for step in range(1, 41):
        time.sleep(0.1)
        server_state["done"] = step / 40


def serve() -> None:  # in a thread, which goes on when the tab that asked is closed
    while True:
        text = server_state["queue"][0][1]
        try:
            work(text)
        except Exception as error:  # the next one is served all the same
            text = f"{text}, which failed: {error}"
        with server_state_lock["queue"]:  # not during the work, for whoever submits waits for it
            server_state.update(queue=server_state["queue"][1:], done=0.0, last=text)
            if not server_state["queue"]:
                return


def submit() -> None:
    with server_state_lock["queue"]:
        server_state["queue"] = [*server_state["queue"], (me, st.session_state["text"])]
        if len(server_state["queue"]) == 1:
            threading.Thread(target=serve, daemon=True).start()


st.title("One at a time", anchor=False)
st.text(f"Finished last: {server_state.setdefault('last', 'nothing yet')}")
for place, (who, text) in enumerate(server_state.setdefault("queue", [])):
    st.text(f"{'At work' if place == 0 else f'In place {place}'}: {text}{' (yours)' if who == me else ''}")
    if place == 0:
        st.progress(server_state.setdefault("done", 0.0))
st.chat_input("What shall be painted?", key="text", on_submit=submit, max_chars=60)
