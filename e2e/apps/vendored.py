"""An app that has the file beside it, and uses a package that brings a copy of its own."""

import sys

import shop  # type: ignore[import-not-found]  # the tests write it
import streamlit as st

from server_state import server_state, server_state_lock


def order() -> None:
    with shop.server_state_lock["orders"]:
        shop.server_state["orders"] = server_state.get("orders", 0) + 1


st.button("order", on_click=order)
is_one_state = shop.server_state is server_state
is_one_lock = shop.server_state_lock["orders"] is server_state_lock["orders"]
are_two_modules = sys.modules["shop.server_state"] is not sys.modules["server_state"]
st.markdown(
    f"orders are {server_state.get('orders', 0)}. one state: {is_one_state}. one lock: {is_one_lock}. "
    f"two modules: {are_two_modules}."
)
