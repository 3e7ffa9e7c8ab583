"""Twenty keys that are read, and a button that tells how much memory ours has taken."""

from __future__ import annotations

import gc
import tracemalloc

import streamlit as st

from server_state import server_state

if not tracemalloc.is_tracing():
    tracemalloc.start()
for i in range(20):
    server_state.setdefault(f"key {i}", i)
if st.button("measure"):
    gc.collect()
    gc.collect()
    traces = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, "*/server_state.py")])
    st.markdown(f"bytes are {sum(trace.size for trace in traces.traces)}.")
