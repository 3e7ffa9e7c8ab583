"""Rooms with players, of classes that the script itself defines."""

import dataclasses

import streamlit as st

from server_state import server_state, server_state_lock
from server_state_store import connect

connect("state.db")


@dataclasses.dataclass
class Player:
    name: str
    score: int = 0


class Room:
    def __init__(self, name: str) -> None:
        self.name = name
        self.players: list[Player] = []

    def join(self, name: str) -> None:
        self.players.append(Player(name))

    def score(self) -> None:
        self.players[-1].score += 1

    def board(self) -> str:
        return ", ".join(f"{player.name} {player.score}" for player in self.players)


def join() -> None:
    with server_state_lock["lobby"]:
        room = server_state["lobby"]
        room.join("Ada" if not room.players else "Bob")


def score() -> None:
    with server_state_lock["lobby"]:
        server_state["lobby"].score()


room = server_state.setdefault("lobby", Room("Lobby"))
st.button("join", on_click=join)
st.button("score", on_click=score)
st.markdown(f"{room.name} has {room.board() or 'nobody'}.")
