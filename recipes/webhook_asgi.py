"""The server of `webhook.py`: it takes orders by POST. `streamlit run webhook_asgi.py`, with Streamlit 1.58 or newer"""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator

import streamlit as st
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from server_state import server_state, server_state_lock


def add(order: dict[str, object]) -> None:
    with server_state_lock["orders"]:
        orders = [order, *server_state.get("orders", [])]
        server_state.update(orders=orders[:100], count=server_state.get("count", 0) + 1)


async def take(request: Request) -> JSONResponse:
    try:
        sent = await request.json()
        order = {"item": str(sent["item"])[:60], "price": float(sent["price"])}
    except (ValueError, TypeError, KeyError):
        return JSONResponse({"error": 'Send {"item": "Tea", "price": 3.5}'}, status_code=400)
    await asyncio.to_thread(add, order)  # whoever waits for a lock on the event loop stops the whole server
    return JSONResponse(order)


async def tick() -> None:
    while True:  # an assignment without a lock never waits
        server_state["rate"] = 1.1 + random.uniform(-0.005, 0.005)
        await asyncio.sleep(2)


@contextlib.asynccontextmanager
async def lifespan(app: st.App) -> AsyncIterator[None]:
    ticker = asyncio.create_task(tick())
    yield
    ticker.cancel()


app = st.App("webhook.py", lifespan=lifespan, routes=[Route("/orders", take, methods=["POST"])])
