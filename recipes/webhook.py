"""A dashboard of orders that another program sends. It is started by `webhook_asgi.py`, which takes them."""

import streamlit as st

from server_state import server_state

st.set_page_config(page_title="Orders", page_icon="🧾")


@st.fragment  # the rate comes every two seconds, and redraws this number alone
def rate() -> None:
    st.metric("Rate of the euro", f"{server_state.setdefault('rate', 1.1):.4f} $")


st.title("Orders", anchor=False)
orders = server_state.setdefault("orders", [])  # the latest first
left, right = st.columns(2)
left.metric("Orders", server_state.setdefault("count", 0))
with right:
    rate()
if orders:
    st.dataframe(orders, hide_index=True)
else:
    st.info("No order yet. Send one:")
st.code("""curl -d '{"item": "Tea", "price": 3.5}' http://localhost:8501/orders""", language="sh", wrap_lines=True)
