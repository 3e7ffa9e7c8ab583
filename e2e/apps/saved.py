"""An app that is used while files are saved, among them `other.py`."""

import streamlit as st

# Streamlit removes local modules for each session that sees a saved file, while others may be importing them already:
# Python then says KeyError, of any module.
while True:
    try:
        import other  # type: ignore[import-not-found]  # the tests write it

        from server_state import server_state, server_state_lock

        break
    except (KeyError, ImportError):
        pass


def write() -> None:
    with server_state_lock["x"]:
        server_state["x"] = server_state.get("x", 0) + 1


st.session_state.runs = st.session_state.get("runs", 0) + 1
st.button("write", on_click=write)
st.markdown(f"x is {server_state.get('x', 0)}.")
st.markdown(f"runs are {st.session_state.runs}.")
st.markdown(f"other is {other.__doc__}, lock is {id(server_state_lock['x'])}.")
