"""Rooms, games and players: own objects in one dict."""

import datetime
from dataclasses import dataclass, field

import streamlit as st

from server_state import server_state, server_state_lock


@dataclass
class Player:
    name: str
    moves: list[tuple[str, datetime.datetime]] = field(default_factory=list)


class Room:
    def __init__(self, name: str) -> None:
        self.name = name
        self.players: dict[str, Player] = {}


def move(name: str) -> None:
    with server_state_lock["rooms"]:
        room = server_state["rooms"].setdefault("Käfig 🎲", Room("Käfig 🎲"))
        player = room.players.setdefault(name, Player(name))
        player.moves.append(("e4", datetime.datetime.now(datetime.timezone.utc)))


server_state.setdefault("rooms", {})
with server_state_lock["rooms"]:
    for room in server_state["rooms"].values():
        for player in room.players.values():
            st.markdown(f"{player.name} in {room.name}: {len(player.moves)}.")
st.button("Move", on_click=move, args=("Ädä",))
