"""A page whose body shows `x`, `left`, `right` and `log`, and whose fragment shows `y`."""

import streamlit as st

from server_state import force_rerun_bound_sessions, no_rerun, server_state, server_state_lock

server_state.setdefault("log", [])


class OfMain:
    def say(self) -> str:
        return "of the main script"


def write(*keys: str) -> None:
    with server_state_lock[keys]:
        for key in keys:
            server_state[key] = server_state.get(key, 0) + 1


def write_quietly() -> None:
    with no_rerun:
        write("x")


@st.fragment
def part() -> None:
    st.button("write y", on_click=write, args=("y",))
    st.markdown(f"y is {server_state.get('y', 0)}.")


st.button("write x", on_click=write, args=("x",))
st.button("write pair", on_click=write, args=("left", "right"))
st.button("write x quietly", on_click=write_quietly)
st.button("force", on_click=lambda: force_rerun_bound_sessions("x"))
if st.button("append"):
    server_state["log"].append("u")
if st.button("append under the lock"):
    with server_state_lock["log"]:
        server_state["log"].append("l")
if st.button("own class"):
    server_state["own"] = OfMain()
if "own" in server_state:
    st.markdown(f"own is {server_state['own'].say()}.")
st.markdown(f"x is {server_state.get('x', 0)}.")
st.markdown(f"pair is {server_state.get('left', 0)} and {server_state.get('right', 0)}.")
st.markdown(f"log is {''.join(server_state['log'])}.")
part()
