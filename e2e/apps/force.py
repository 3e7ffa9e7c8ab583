"""What nobody can see to change, and a page that relies on being rerun itself."""

import streamlit as st

from server_state import force_rerun_bound_sessions, server_state


class Game:
    turns = 0


if "game" not in server_state:
    server_state.game = Game()
st.markdown(f"turn {server_state.game.turns}.")
if st.button("Next turn"):
    server_state.game.turns += 1
    force_rerun_bound_sessions("game")
