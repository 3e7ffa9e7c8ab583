"""Noughts and crosses for two, others watch. `streamlit run turns.py`, with Streamlit 1.48 or newer"""

import secrets
from urllib.parse import quote

import streamlit as st

from server_state import server_state, server_state_lock

LINES = ({0, 1, 2}, {3, 4, 5}, {6, 7, 8}, {0, 3, 6}, {1, 4, 7}, {2, 5, 8}, {0, 4, 8}, {2, 4, 6})
game = "game " + st.query_params.setdefault("room", secrets.token_hex(3))[:40]
me = st.query_params.setdefault("me", secrets.token_hex(8))  # in the address, so that a reload keeps the seat


def result(moves: list[int]) -> str:
    for mark, fields in (("✕", {*moves[::2]}), ("◯", {*moves[1::2]})):
        if any(line <= fields for line in LINES):
            return f"{mark} has won."
    return "Nobody has won." if len(moves) == 9 else ""


def act(game: str, me: str, field: int | None = None) -> None:
    with server_state_lock[game]:  # and look again, for the page that was clicked may be an older one
        seats, moves = server_state.get(game, ({}, []))
        if field is not None and seats.get("✕◯"[len(moves) % 2]) == me and field not in moves and not result(moves):
            server_state[game] = (seats, [*moves, field])
        elif field is None and me in seats.values() and result(moves):
            server_state[game] = (dict(zip("◯✕", seats.values(), strict=False)), [])
        elif field is None and me not in seats.values() and len(seats) < 2:
            server_state[game] = ({**seats, "✕◯"[len(seats)]: me}, moves)


seats, moves = server_state.get(game, ({}, []))
turn, mine, end = "✕◯"[len(moves) % 2], [mark for mark in seats if seats[mark] == me], result(moves)
st.title("Three in a row", anchor=False)
st.info(end or f"You {'are ' + mine[0] if mine else 'watch'}; {turn} is to move.")
board = st.container(horizontal=True, width=302)  # wide enough for three
for field in range(9):
    mark = "✕◯"[moves.index(field) % 2] if field in moves else " "
    locked = bool(end) or field in moves or turn not in mine
    board.button(mark, key=f"field {field}", width=90, disabled=locked, on_click=act, args=(game, me, field))
if end if mine else len(seats) < 2:
    st.button("Play again" if mine else "Play", on_click=act, args=(game, me), type="primary")
st.caption("Play or watch along:")
st.code(f"{st.context.url}?room={quote(game[5:])}", language=None, wrap_lines=True)
