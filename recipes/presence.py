"""Who is where: `here("lobby", "Ada")` puts this session into the lobby, and gives {session: name} of all in it.

A session is in one place, the latest that it named, until its tab is closed or it calls `leave()`.
"""

import contextlib
import threading
import time
import uuid

import streamlit as st
from streamlit.runtime import Runtime, scriptrunner

from server_state import no_rerun, server_state, server_state_lock

PLACE, WATCHER, SIGNS = "people in ", "presence ", "signs of life"


def here(place: str, name: str) -> dict[str, str]:
    context = scriptrunner.get_script_run_ctx(suppress_warning=True)
    assert context is not None, "only a browser session is somewhere: start the app with `streamlit run`"
    key, session, entry = PLACE + place, context.session_id, (_watcher(), name)
    if st.session_state.get(PLACE) != (key, session):
        leave()
        st.session_state[PLACE] = (key, session)
    people = server_state.get(key, {})
    if people.get(session) != entry:
        with server_state_lock[key]:
            people = server_state[key] = {**server_state.get(key, {}), session: entry}
    return {one: name for one, (_, name) in people.items()}


def leave() -> None:
    if before := st.session_state.pop(PLACE, None):  # in a thread, for a script is rerun for what it reads
        thread = threading.Thread(target=_remove, args=before)
        thread.start()
        thread.join()


def _remove(key: str, *gone: str) -> None:
    with server_state_lock[key]:
        people = {one: entry for one, entry in server_state.pop(key, {}).items() if one not in gone}
        server_state.update({key: people} if people else {})


def _watcher() -> str:
    """Give the name of this process's thread. It stays when a saved file has this module imported anew."""
    names = [thread.name for thread in threading.enumerate() if thread.name.startswith(WATCHER)]
    if not names:
        threading.Thread(target=_watch, args=[Runtime.instance()], name=WATCHER + uuid.uuid4().hex, daemon=True).start()
    return names[0] if names else _watcher()


def _watch(runtime: Runtime) -> None:
    """Each second, remove whose tab is closed, and all of a process that gave no sign of life for ten rounds."""
    me, is_open, number = threading.current_thread().name, runtime.is_active_session, 0
    came = dict[tuple[str, int], int]()  # each process's latest sign, and the round in which it came
    while _watcher() == me:  # of two that began at once, one ends
        with contextlib.suppress(ConnectionError, RuntimeError):  # a store that is away: again a second later
            dead = {who for (who, _), since in came.items() if number - since > 10}
            for key in [key for key in server_state if key.startswith(PLACE)]:
                people = server_state.get(key, {}).items()
                if gone := [one for one, (who, _) in people if who in dead or (who == me and not is_open(one))]:
                    _remove(key, *gone)
            with no_rerun, server_state_lock[SIGNS]:
                signs = {who: sign for who, sign in server_state.get(SIGNS, {}).items() if who not in dead}
                server_state[SIGNS] = {**signs, me: number}
            came = {pair: came.get(pair, number) for pair in signs.items()}
            number += 1
        time.sleep(1)
