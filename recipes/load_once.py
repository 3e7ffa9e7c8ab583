"""A model that is loaded once for all tabs, and can be loaded again under their feet. `streamlit run load_once.py`"""

import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import streamlit as st

from server_state import server_state, server_state_lock


def load() -> Callable[[str], str]:
    """Put your own here: a model, an engine, an index. This one takes three seconds."""
    print("Loading the model", flush=True)
    time.sleep(3)
    loaded = f"{datetime.now():%H:%M:%S}"
    return lambda text: f"{len(text.split())} words, says the model that was loaded at {loaded}."


def model() -> Any:
    with server_state_lock["model"]:  # while one tab loads it, the others wait here
        if "model" not in server_state:  # not setdefault("model", load()), which would call load() in each tab
            server_state["model"] = load()
    return server_state["model"]


st.title("A model that is loaded once", anchor=False)
if st.button("Load it again, for all"):
    with st.spinner("Loading; the others use the old one meanwhile"):
        server_state["model"] = load()  # without the lock, so that nobody waits
with st.spinner("The first visitor loads it, the others wait"):
    ask = model()
text = st.text_area("Count the words of", "Once upon a time")
st.info(ask(text))
