"""Tests of server_state on a fake of Streamlit's runtime: `python -m unittest`, no installed package needed."""

from __future__ import annotations

import collections
import contextlib
import contextvars
import dataclasses
import enum
import functools
import gc
import heapq
import importlib.util
import io
import itertools
import logging
import multiprocessing
import os
import pickle
import queue
import random
import re
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import types
import unittest
import weakref
from pathlib import Path
from unittest import mock

FILE = Path(__file__).resolve().parent / "server_state.py"
CODE_TEXT = FILE.read_text()
CODE = compile(CODE_TEXT, str(FILE), "exec")


def load():
    """The module as a new server has it: the copy that holds the state."""
    module = sys.modules["_server_state_1"] = types.ModuleType("_server_state_1")
    exec(CODE, vars(module))
    return module


def load_again(name="server_state", code=CODE):
    """One more copy within the same server."""
    module = types.ModuleType(name)
    module.__file__ = str(FILE)
    exec(code, vars(module))
    return module


# --- What tests do to the module's insides ---
def fingerprint(module, value):
    return module._fingerprint(value).content


def is_notified(module):
    """Whether the scheduler is to look for readers."""
    return module._scheduler.is_notified


def is_idle(module):
    """Whether no transaction is left open."""
    return not module._transactions


# --- A model of Streamlit: sessions, runs, fragments, fast reruns and the event loop ---
# Nothing runs by itself. A script is a generator that yields wherever another thread may come in between (and where
# Streamlit may interrupt it); `World.step_*` advance one runner, the loop or a helper thread by a single step.


class StopScript(BaseException):
    """What Streamlit raises in a script to end it."""


class RerunScript(BaseException):
    """What `st.rerun()` raises."""


class Name:
    """Stands for a member of one of Streamlit's enums."""

    def __init__(self, name):
        self.name = name


class ClientState:
    def __init__(self):
        self.query_string = self.page_script_hash = self.fragment_id = ""
        self.widget_states = frozenset()  # of what the user has done since

    def CopyFrom(self, other):
        vars(self).update(vars(other))


class Loop:
    """An event loop on the world's clock."""

    def __init__(self, world):
        self.world, self.soon, self.timers, self.count = (
            world,
            collections.deque(),
            [],
            itertools.count(),
        )

    def call_soon_threadsafe(self, callback, *args):
        self.soon.append((callback, args))

    def call_soon(self, callback, *args):
        self.soon.append((callback, args))

    def call_later(self, delay, callback):
        entry = [self.world.now + delay, next(self.count), callback, ()]
        heapq.heappush(self.timers, entry)
        return types.SimpleNamespace(cancel=lambda: entry.__setitem__(2, lambda: None))


class Context:
    def __init__(self, runner):
        self.session_id, self.script_requests = runner.session.id, runner._requests
        self._has_script_started, self.fragment_ids_this_run = False, []
        self.query_string = self.page_script_hash = ""
        self.context_info = "timezone and locale"

    __hash__ = None  # like the dataclass that it stands for


@dataclasses.dataclass
class RerunData:
    query_string: str = ""
    page_script_hash: str = ""
    fragment_id: str = ""
    context_info: object = None


class Signal:
    def __init__(self):
        self.receivers = []

    def connect(self, receiver, weak=True):
        if receiver not in self.receivers:  # as blinker does
            self.receivers.append(receiver)

    def send(self, sender, **details):
        for receiver in list(self.receivers):
            receiver(sender, **details)


class Requests:
    """What is asked of a runner."""

    def __init__(self, first):
        self.queue, self.is_stopped = [first], False
        self._rerun_data, self.widget_states = self, first[0].widget_states  # what waits, or what was taken last

    @property
    def _state(self):
        return Name("STOP" if self.is_stopped else "RERUN" if self.queue else "CONTINUE")

    @property
    def fragment_id_queue(self):
        return [state.fragment_id for state, _ in self.queue if state.fragment_id]


class Runner:
    """Makes a session's runs, one after the other, as a script thread does."""

    def __init__(self, session, requests):
        self.session, self.world = session, session.world
        self._requests = Requests(requests)
        self._script_thread, self.ident, self.drew = self, id(self), False
        self.serial = self.made = 0  # the number of its last run, and how many it has made
        self.on_event = Signal()
        self.ctx = Context(self)
        self.enter(None)
        self.context = contextvars.copy_context()
        self.steps = self.main()
        self.world.runners.append(self)

    def enter(self, fragment):
        """Note which fragment is run, as older releases do or as newer ones do."""
        self.fragment = fragment
        if self.world.older:
            self.ctx.current_fragment_id = fragment
        else:
            self.thread_state = types.SimpleNamespace(fragment_id=fragment, is_parallel_worker=False)

    def send(self, name, **details):
        self.on_event.send(self, event=Name(name), **details)

    def main(self):
        queue = self._requests.queue
        while queue and not self._requests.is_stopped:
            state, action = queue.pop(0)
            while state.fragment_id and queue and queue[0][0].fragment_id:
                state, action = self.joined((state, action), queue.pop(0))
            self._requests.widget_states = state.widget_states
            while self.run_once(state):
                ended = yield from self.one_run(state, action)
                self.send(ended)
                if ended != "SCRIPT_STOPPED_FOR_RERUN":
                    fragments = state.fragment_id.split()  # several that waited together are one run
                    self.world.loop.call_soon_threadsafe(self.session.finish, self, fragments, self.serial)
                yield
                if ended != "SCRIPT_STOPPED_FOR_RERUN":
                    break
                action = None
                self._requests.widget_states = None  # of `st.rerun()`
        client_state = ClientState()
        client_state.page_script_hash = self.session.page
        client_state = None if self.world.says_nothing else client_state
        self._requests.is_stopped = True
        self.send("SHUTDOWN", client_state=client_state)
        self.world.loop.call_soon_threadsafe(self.session.over, self, client_state)

    def request_rerun(self, data):
        """Join a request to what waits, as Streamlit does: a full rerun takes the place of fragments'."""
        assert not self._requests.is_stopped
        queue = self._requests.queue
        action = next((action for _, action in queue if action), None)
        state = ClientState()
        state.page_script_hash, state.fragment_id = data.page_script_hash, data.fragment_id or ""
        state.widget_states = frozenset().union(*(waiting.widget_states for waiting, _ in queue))
        if not state.fragment_id:
            queue[:] = [(state, action)]
        elif all(waiting.fragment_id not in ("", state.fragment_id) for waiting, _ in queue):
            queue.append((state, None))

    def joined(self, *requests):
        """Fragments that wait together are one run, as in Streamlit, and all that was clicked counts."""
        state = ClientState()
        state.page_script_hash = requests[-1][0].page_script_hash
        state.fragment_id = " ".join(dict.fromkeys(" ".join(one.fragment_id for one, _ in requests).split()))
        state.widget_states = frozenset().union(*(one.widget_states for one, _ in requests))

        def act(session):
            for _, action in requests:
                if action is not None:
                    yield from action(session)

        return state, act

    def run_once(self, state):
        self.session.page = state.page_script_hash or self.session.page
        return True

    def one_run(self, state, action):
        session, ctx = self.session, self.ctx
        fragments = state.fragment_id.split()  # several that waited together are one run
        ctx._has_script_started, ctx.fragment_ids_this_run = False, fragments
        self.enter(None)
        self.made += 1
        self.serial = next(session.count)
        session.runs.append(tuple(fragments))
        self.send("SCRIPT_STARTED", fragment_ids_this_run=fragments)
        yield
        body = self.body(fragments, action)
        try:
            while True:
                next(body)
                yield
                if self._requests.is_stopped:
                    session.interrupted += 1
                    body.throw(StopScript())
                elif self._requests.queue and not self._requests.queue[0][0].fragment_id:
                    session.interrupted += 1
                    body.throw(RerunScript())
        except StopIteration:
            return "FRAGMENT_STOPPED_WITH_SUCCESS" if fragments else "SCRIPT_STOPPED_WITH_SUCCESS"
        except StopScript:
            return "SCRIPT_STOPPED_WITH_SUCCESS"
        except RerunScript:
            return "SCRIPT_STOPPED_WITH_SUCCESS" if self._requests.queue else "SCRIPT_STOPPED_FOR_RERUN"

    def body(self, fragments, action):
        session = self.session
        if action is not None:
            yield from action(session)  # a widget's callback
        self.ctx._has_script_started = True
        if not fragments:
            if session._scriptrunner is self:  # one that was superseded is stopped before it comes to that
                session.fragments = {}
            yield from session.world.script(session)
        for fragment in fragments:
            if fragment in session.fragments:  # else Streamlit skips it
                yield from session.fragment(fragment, session.fragments[fragment])


class Info:
    """Streamlit's SessionInfo: a new one for every connection."""

    def __init__(self, session):
        self.session = session


class Session:
    """Streamlit's AppSession, and the tab in front of it."""

    count = itertools.count()

    def __init__(self, world, page="main"):
        self.world, self.id, self.page = world, f"session {next(self.count)}", page
        self._event_loop = world.loop
        self._scriptrunner = None
        self._client_state = ClientState()
        self._client_state.page_script_hash = page
        self._fragment_storage = types.SimpleNamespace(contains=lambda fragment: fragment in self.fragments)
        self.fragments, self.shown, self.runs, self.interrupted = {}, {}, [], 0
        self.drawn_by = {}  # the serial number of the run that drew what is shown, by place
        self.is_dead = self.was_running = False  # dead: what is sent goes nowhere, and nobody knows
        self.reconnect()
        self.is_patchwork = self.blank = False
        self._browser_queue = types.SimpleNamespace(_queue=[])
        self.pressed = None  # what a button does whose work is done in the script itself
        world.sessions[self.id] = self

    def reconnect(self):
        self.connected, self.is_dead, self.has_come_back = True, False, self.is_dead
        self.info = Info(self)
        if self.was_running:
            self.was_running = False
            self.click()  # the browser asks for a run if one was under way

    def die(self):
        """Lose the connection without a word."""
        self.was_running = self.was_running or self._scriptrunner is not None
        self.is_dead = True

    def request_rerun(self, state, action=None):
        if all(fragment in self.fragments for fragment in state.fragment_id.split()):
            if self.world.by_loop:
                self.world.before_rerun(self, state.fragment_id or None)
            runner = self._scriptrunner
            if runner is not None and self.world.fast_reruns and not state.fragment_id:
                runner._requests.is_stopped = True
            elif runner is not None and not runner._requests.is_stopped and runner in self.world.runners:
                runner._requests.queue.append((state, action))
                return
            self.is_patchwork |= runner is not None  # something of it may be shown
            self.blank = bool(state.fragment_id) and (self.blank or (runner is not None and not runner.drew))
            self._scriptrunner = Runner(self, (state, action))

    def click(self, action=None, fragment=None, page=None):
        """The user does something: `action(session)` is the callback."""
        state = ClientState()
        state.page_script_hash, state.fragment_id = page or self.page, fragment or ""
        state.widget_states = frozenset([object()])
        self.request_rerun(state, action)

    def over(self, runner, client_state):
        if self._scriptrunner is runner:
            self._scriptrunner, self._client_state = None, client_state or self._client_state
            self.is_patchwork |= runner.made > 1  # we may hear only now of what it made before the last run
        else:
            self.is_patchwork = True

    def fragment(self, name, function):
        """What calling a function that is an `st.fragment` does."""
        runner, self.fragments[name] = self.world.current, function
        before = runner.fragment
        runner.enter(name)
        try:
            yield from function(self)
        finally:
            runner.enter(before)

    def show(self, key, text=None):
        """Read a key and draw what it holds."""
        text = repr(self.world.module.server_state.get(key)) if text is None else text
        runner = self.world.current
        place, runner.drew = (runner.fragment, key), True
        self.world.loop.call_soon_threadsafe(self.draw, runner, runner.serial, place, text)
        runner.send("ENQUEUE_FORWARD_MSG")

    def draw(self, runner, serial, place, text):
        if self._scriptrunner is runner and not self.is_dead:  # of a superseded runner nothing is sent
            self.shown[place], self.drawn_by[place] = text, serial

    def finish(self, runner, fragments, serial):
        """Remove what was not drawn again."""
        if self._scriptrunner is runner and not self.is_dead:
            self.shown = {
                place: text
                for place, text in self.shown.items()
                if self.drawn_by[place] == serial or (fragments and place[0] not in fragments)
            }
            self.is_patchwork &= bool(fragments)


class Lock:
    """A re-entrant lock between the world's threads, which cannot wait: a script tries again at its next step."""

    def __init__(self, world):
        self.world, self.owner, self.depth = world, None, 0

    def acquire(self, blocking=True, timeout=-1):
        me = self.world.get_ident()
        if self.owner not in (None, me):
            assert not blocking, "would wait for ever: use acquire(blocking=False) and yield"
            return False
        self.owner, self.depth = me, self.depth + 1
        return True

    def release(self):
        if not self._is_owned():
            raise RuntimeError
        self.depth -= 1
        self.owner = self.owner if self.depth else None

    def _is_owned(self):
        return self.owner == self.world.get_ident()

    def __repr__(self):
        return "<locked>" if self.depth else "<unlocked>"


class Local:
    """What `threading.local` is to the world's threads."""

    def __init__(self, world, begin):
        object.__setattr__(self, "of_thread", lambda: vars(world.current or world).setdefault("local", {}))
        object.__setattr__(self, "begin", begin)

    def __getattr__(self, name):
        if name not in self.of_thread():
            self.begin(self)
        return self.of_thread()[name]

    def __setattr__(self, name, value):
        self.of_thread()[name] = value


class World:
    """A server whose single steps are taken one at a time, in the order that a test wants."""

    def __init__(self, script=None, fast_reruns=True, older=False):
        self.module = load()
        self.now, self.current, self.by_loop, self.fast_reruns = 100.0, None, False, fast_reruns
        self.loop, self.runners, self.sessions = Loop(self), [], {}
        self.script, self.older = script, older
        self.wrong, self.says_nothing = (
            [],
            False,
        )  # what must not happen and did; whether a run's end is told in full
        self.ours = []  # every rerun that the module asked for: (session, fragment)
        self.module.time = types.SimpleNamespace(
            monotonic=lambda: self.now, process_time=lambda: 0.0, sleep=lambda seconds: None
        )
        self.module._local = Local(self, self.module._Local.__init__)
        self.module.gc = types.SimpleNamespace(
            collect=lambda: None, isenabled=gc.isenabled, enable=gc.enable, disable=gc.disable
        )
        self.module.threading = types.SimpleNamespace(
            get_ident=self.get_ident,
            current_thread=lambda: self.current,
            RLock=lambda: Lock(self),
            Thread=lambda **what: types.SimpleNamespace(start=lambda: self.start_thread(**what)),
        )
        world = self

        class Runtime:
            exists = staticmethod(lambda: True)
            _session_mgr = types.SimpleNamespace(
                get_session_info=lambda name: world.sessions[name].info if name in world.sessions else None
            )

            @classmethod
            def instance(cls):
                return cls() if cls is Runtime else None

            def is_active_session(self, name):
                return name in world.sessions and world.sessions[name].connected

        self.options = {"runner.postScriptGC": True}
        self.modules = {
            "streamlit.runtime": types.SimpleNamespace(Runtime=Runtime),
            "streamlit.config": types.SimpleNamespace(get_option=self.options.get, set_option=self.options.__setitem__),
            "streamlit.runtime.scriptrunner": types.SimpleNamespace(
                get_script_run_ctx=lambda suppress_warning: self.current and self.current.ctx,
                RerunData=RerunData,
            ),
            "streamlit.runtime.scriptrunner_utils.script_run_context": types.SimpleNamespace(
                ThreadState=types.SimpleNamespace(get=self.thread_state)
            ),
        }

    def __enter__(self):
        self.before = {name: sys.modules.get(name) for name in self.modules}
        sys.modules.update(self.modules)
        return self

    def __exit__(self, *error):
        for name, module in self.before.items():
            sys.modules.pop(name)
            if module is not None:
                sys.modules[name] = module

    def get_ident(self):
        return id(self.current)

    def thread_state(self):
        if not hasattr(self.current, "thread_state"):
            raise RuntimeError("FragmentThreadState not initialized")
        return self.current.thread_state

    def before_rerun(self, session, fragment):
        if session._scriptrunner is not None:
            self.wrong.append(f"R4: a rerun interrupts a run of {session.id}")
        self.ours.append((session, fragment))

    def connect(self, page="main"):
        session = Session(self, page)
        session.click()
        return session

    def step_runner(self, runner):
        self.current = runner
        try:
            runner.context.run(next, runner.steps)
        except StopIteration:
            self.runners.remove(runner)
            vars(runner).pop("local", None)  # goes with the thread
        finally:
            self.current = None

    def step_loop(self):
        callback, args = self.loop.soon.popleft()
        self.by_loop = True
        try:
            callback(*args)
        finally:
            self.by_loop = False

    def step_inspector(self):
        self.module._inspector.wake.clear()
        self.current = types.SimpleNamespace(ctx=None)
        try:
            self.module._inspector.look()
        finally:
            self.current = None

    def start_thread(self, target, args=(), name=None, daemon=False):
        if name is None:  # the inspector's steps are taken by themselves
            before, self.current = self.current, types.SimpleNamespace(ctx=None)
            try:
                target(*args)
            finally:
                self.current = before

    def pass_time(self, seconds):
        self.now += seconds
        while self.loop.timers and self.loop.timers[0][0] <= self.now:
            self.loop.soon.append(heapq.heappop(self.loop.timers)[2:])

    def settle(self, seconds=3.0):
        """Let everything happen that is under way, and that comes of it within so many seconds."""
        for _ in range(100_000):
            if self.runners:
                for runner in list(self.runners):
                    self.step_runner(runner)
            elif self.loop.soon:
                self.step_loop()
            elif self.module._inspector.wake.is_set():
                self.step_inspector()
            elif seconds > 0:
                seconds -= 0.05
                self.pass_time(0.05)
            else:
                return
        raise AssertionError("the world never comes to rest")


def reads(*keys):
    """A script that shows keys."""

    def script(session):
        for key in keys:
            session.show(key)
            yield

    return script


def slowly(steps):
    """A script that shows x, and goes on for some steps."""

    def script(session):
        session.show("x")
        for _ in range(steps):
            yield

    return script


def does(function):
    """A click whose callback calls a function."""

    def action(session):
        function()
        yield

    return action


class Case(unittest.TestCase):
    """A test in a world, where `self.state` and `self.locks` are the mapping and the locks."""

    fast_reruns, older = True, False

    def setUp(self):
        self.world = (
            self.enterContext(World(reads("x"), self.fast_reruns, self.older))
            if hasattr(self, "enterContext")
            else None
        )
        if self.world is None:  # Python 3.10
            self.world = World(reads("x"), self.fast_reruns, self.older)
            self.world.__enter__()
            self.addCleanup(self.world.__exit__)
        self.addCleanup(lambda: self.assertEqual(self.world.wrong, []))
        self.module = self.world.module
        self.state, self.locks = self.module.server_state, self.module.server_state_lock

    def tabs(self, count, script=None, page="main"):
        if script is not None:
            self.world.script = script
        tabs = [self.world.connect(page) for _ in range(count)]
        self.world.settle()
        for tab in tabs:
            tab.runs.clear()
        return tabs

    def click(self, tab, function=None, **more):
        tab.click(None if function is None else does(function), **more)
        self.world.settle()

    def runs_of(self, *tabs):
        """How often each tab has run since it was last asked."""
        counts = [len(tab.runs) for tab in tabs]
        for tab in tabs:
            tab.runs.clear()
        return counts

    def run_out(self, first=0):
        """Let runs come to their end but for the first ones, before the loop or the inspector does anything."""
        while len(self.world.runners) > first:
            self.world.step_runner(self.world.runners[first])

    def run_beside(self, tab, key, text):
        """Leave the first runner where it is, until a tab shows a text."""
        while tab.shown[None, key] != text:
            self.world.pass_time(0.05)
            while self.world.loop.soon:
                self.world.step_loop()
            for runner in self.world.runners[1:]:
                self.world.step_runner(runner)

    def run_until_shown(self, tab, key):
        """Go on with the first runner, and the loop, until a tab shows a key."""
        while tab.shown.get((None, key)) is None:
            self.world.step_runner(self.world.runners[0])
            while self.world.loop.soon:
                self.world.step_loop()

    def beside(self, ticks):
        """Let all go on side by side, in each tick (10 ms) by a step; the inspector tries again each 0.2 s."""
        inspector = self.module._inspector
        for tick in range(ticks):
            while self.world.loop.soon:
                self.world.step_loop()
            for runner in list(self.world.runners):
                self.world.step_runner(runner)
            if inspector.wake.is_set() or (inspector.suspected and tick % 20 == 0):
                self.world.step_inspector()
            self.world.pass_time(0.01)

    def in_thread(self, thread, function):
        """Have a thread of the app's do something."""
        before, self.world.current = self.world.current, thread
        try:
            contextvars.Context().run(function)
        finally:
            self.world.current = before

    def changes(self, function):
        """Whether something that a thread does reruns a reader of x."""
        (tab,) = self.tabs(1, reads("x"))
        function()
        self.world.settle()
        return self.runs_of(tab) == [1]


class Mapping(Case):
    def test_M1_is_a_mapping_with_attributes(self):
        state = self.state
        state["a"], state.b = 1, 2
        self.assertEqual(
            (state.a, state["b"], len(state), list(state), "a" in state, "c" in state),
            (1, 2, 2, ["a", "b"], True, False),
        )
        self.assertEqual(
            (state.get("c"), state.get("c", 3), state.setdefault("c", 4), state.setdefault("c", 5)),
            (None, 3, 4, 4),
        )
        self.assertEqual((state.pop("c"), state.pop("c", 6), state.to_dict()), (4, 6, {"a": 1, "b": 2}))
        self.assertEqual(
            (list(state.keys()), list(state.values()), list(state.items())),
            (["a", "b"], [1, 2], [("a", 1), ("b", 2)]),
        )
        self.assertEqual((state == {"a": 1, "b": 2}, repr(state)), (True, "ServerState({'a': 1, 'b': 2})"))
        state.update({"d": 7}, e=8)
        state.update([("f", 9)])
        self.assertEqual(state.pop("f"), 9)
        self.assertEqual(sorted([state.popitem(), *state.items()]), [("a", 1), ("b", 2), ("d", 7), ("e", 8)])
        state.update(d=7, e=8)
        del state["d"], state.e
        state.clear()
        self.assertEqual((len(state), state.to_dict()), (0, {}))
        self.assertIsInstance(state, collections.abc.MutableMapping)

    def test_M1_keys_are_str(self):
        self.state[1] = "one"
        self.assertEqual((self.state["1"], 1 in self.state, self.state.get(1)), ("one", True, "one"))
        for bad in (1.5, None, ("a",), b"a"):
            self.assertNotIn(bad, self.state)
            for use in (self.state.__getitem__, lambda key: self.state.update({key: 1})):
                with self.assertRaisesRegex(TypeError, type(bad).__name__):
                    use(bad)

    def test_M2_missing_key(self):
        for use in (
            lambda: self.state["gone"],
            lambda: self.state.pop("gone"),
            lambda: self.state.__delitem__("gone"),
        ):
            with self.assertRaisesRegex(KeyError, "gone.*setdefault"):
                use()
        for use in (lambda: self.state.gone, lambda: delattr(self.state, "gone")):
            for error in (AttributeError, KeyError):
                with self.assertRaisesRegex(error, "gone.*setdefault"):
                    use()
        self.assertFalse(hasattr(self.state, "gone"))
        with self.assertRaises(KeyError):
            self.state.popitem()

    def test_M2_attribute_that_could_not_be_read_back(self):
        self.state.register = self.state.mro = 1  # the metaclass's, which do not hide ours
        self.assertEqual(self.state.register + self.state.mro, 2)
        self.state.clear()
        for name in ("items", "get", "_x", "__y"):
            with self.assertRaisesRegex(AttributeError, r'\["' + name):
                setattr(self.state, name, 1)
        self.assertEqual(len(self.state), 0)

    def test_M2_a_store_may_have_a_value_that_is_missing_here(self):
        class Store(self.module._Alone):
            def found(self, key):
                if key == "refused":
                    raise ValueError("cannot be read")
                return 1 if key == "there" else self_.module._MISSING

        self_ = self
        with mock.patch.object(self.module, "_store", Store()):
            self.assertEqual((self.state["there"], "there" in self.state, "gone" in self.state), (1, True, False))
            with self.assertRaisesRegex(ValueError, "cannot be read"):
                "refused" in self.state  # noqa: B015

    def test_M3_iteration_works_on_a_snapshot(self):
        self.state.update(a=1, b=2, c=3)
        for key, _ in self.state.items():
            self.state.pop(key)
            self.state[key + key] = 0
        self.assertEqual(list(self.state), ["aa", "bb", "cc"])

    def test_M3_values_are_shared(self):
        value = []
        self.state.x = value
        self.assertIs(self.state.x, value)


class Locks(Case):
    def test_L1_same_lock_for_a_key(self):
        lock = self.locks["x"]
        self.state.x = 1
        del self.state.x
        self.assertIs(self.locks.x, lock)
        self.assertEqual(self.locks["x",]._lock.locks, [lock._lock])
        with lock, lock:
            self.assertTrue(lock.acquire())
            lock.release()
        with self.assertRaisesRegex(RuntimeError, "x.*acquire"):
            lock.release()
        with self.assertRaisesRegex(AttributeError, "_x"):
            self.locks._x  # noqa: B018
        with self.assertRaises(TypeError):
            self.locks[()]

    def test_L1_keeps_others_out(self):
        module = load()
        lock, results = module.server_state_lock["x"], []

        def other():
            results.append(lock.acquire(blocking=False))
            results.append(lock.acquire(timeout=0.01))

        with lock:
            thread = threading.Thread(target=other)
            thread.start()
            thread.join()
        self.assertEqual(results, [False, False])

    def test_L2_several_locks_cannot_deadlock(self):
        module = load()
        module.server_state.n = 0

        def work(names):
            for _ in range(300):
                with module.server_state_lock[names]:
                    module.server_state.n += 1

        threads = [
            threading.Thread(target=work, args=(names,), daemon=True)
            for names in [("a", "b", "c"), ("c", "b", "a"), ("b", "a")] * 2
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        self.assertEqual(module.server_state.n, 1800)

    def test_L2_what_was_taken_is_given_back(self):
        module, got = load(), []

        def other():
            got.append(module.server_state_lock["a", "b"].acquire(blocking=False))

        with module.server_state_lock["b"]:
            thread = threading.Thread(target=other)
            thread.start()
            thread.join()
        got.append(module.server_state_lock["a"].acquire(blocking=False))
        self.assertEqual(got, [False, True])

    def test_L3_changes_under_a_lock_are_one_rerun_after_the_release(self):
        tab, other = self.tabs(2, reads("x", "y"))
        seen = []

        def work():
            with self.locks["x"]:
                for i in range(50):
                    with self.locks["y"]:
                        self.state.x = self.state.y = i
                seen.append(is_notified(self.module))

        self.click(tab, work)
        self.assertEqual(self.runs_of(tab, other), [1, 1])
        self.assertEqual(seen, [False])

    def test_L3_readers_are_told_soon_after_the_release(self):
        (tab,) = self.tabs(1)
        entry = self.module._entry
        for value in (1, [2]):
            before = entry("x").told
            with self.locks["x"]:
                self.state.x = value
                self.assertEqual(entry("x").told, before)
                self.assertGreater(entry("x").version, before)
            self.world.settle(0.1)
            self.assertEqual((tab.shown[None, "x"], entry("x").told), (repr(value), entry("x").version))

    def test_L3_what_was_released_is_told_though_the_next_transaction_has_begun(self):
        (tab,) = self.tabs(1)
        with self.locks["x"]:
            self.state.x = "old"
        with self.locks["x"]:
            self.state.x = "half"
            self.world.settle(0.5)
            self.assertEqual(self.runs_of(tab), [1])
            self.state.x = "new"
            self.world.settle(0.5)
            self.assertEqual(self.runs_of(tab), [0])
        self.world.settle(0.5)
        self.assertEqual((self.runs_of(tab), tab.shown[None, "x"]), ([1], "'new'"))

    def test_L3_nobody_is_rerun_for_a_half_done_change(self):
        tab, other = self.tabs(2)
        lock = self.locks["x"]

        def action(session):
            with lock:
                self.state.x = 1
                yield
                self.state.x = 2
                yield

        tab.click(action)
        for _ in range(3):
            self.world.step_runner(self.world.runners[0])
        while self.world.loop.soon:
            self.world.step_loop()
        self.assertEqual(self.runs_of(other), [0])
        self.world.settle()
        self.assertEqual((self.runs_of(other), other.shown[None, "x"]), ([1], "2"))

    def test_L3_a_script_that_is_stopped_releases_and_publishes(self):
        for error in (StopScript, RerunScript, ValueError):
            tab, other = self.tabs(2)

            def action(session, error=error):
                with contextlib.suppress(ValueError), self.locks["x"]:
                    self.state.x = error.__name__
                    yield
                    raise error

            tab.click(action)
            self.world.settle()
            self.assertEqual(other.shown[None, "x"], repr(error.__name__))
            self.assertTrue(is_idle(self.module))

    def test_L4_in_place_under_a_lock(self):
        class Room:
            def __init__(self):
                self.messages, self.lock = [], threading.Lock()

        def locked(name, function):
            with self.locks[name]:
                function()

        room = Room()
        for name, value, change in [
            ("x", [], lambda: self.state.x.append(1)),
            ("x", {"chat": []}, lambda: self.state.x["chat"].append(1)),
            ("another name", room, lambda: self.state.x.messages.append("hello")),
            ("x", room, lambda: room.messages.append("fetched before the lock")),
        ]:
            self.state.x = value
            with self.subTest(name=name, value=value):
                self.assertTrue(self.changes(functools.partial(locked, name, change)))
                self.assertFalse(self.changes(functools.partial(locked, name, lambda: self.state.x)))
        self.state.x = value = []
        self.assertTrue(self.changes(functools.partial(locked, "y", lambda: locked("x", lambda: value.append(1)))))

    def test_L5_in_place_without_a_lock(self):
        for value, change in [
            ([], lambda: self.state.x.append(1)),
            ({"a": {"b": [1]}}, lambda: self.state.x["a"]["b"].append(1)),
            (collections.deque(), lambda: self.state.x.append(1)),
            (set(), lambda: self.state.x.add(1)),
            (collections.Counter(), lambda: self.state.x.update("ab")),
        ]:
            with self.subTest(value=value):
                self.state.x = value
                tab, other = self.tabs(2)
                self.click(tab, change)  # in its callback
                self.assertEqual(self.runs_of(tab, other), [1, 1])
                self.click(tab, lambda: self.state.x)
                self.assertEqual(self.runs_of(tab, other), [1, 0])

    def test_L5_within_objects_of_the_apps_classes(self):
        for value, change in [
            ({"room": Point([])}, lambda: self.state.x["room"].x.append(1)),
            ([Slots([])], lambda: self.state.x[0].a.append(1)),
            ([Service()], lambda: self.state.x[0].call()),
        ]:
            with self.subTest(value=value):
                self.state.x = value
                tab, other = self.tabs(2)
                self.click(tab, change)
                self.assertEqual(self.runs_of(tab, other), [1, 1])
                self.click(tab, lambda: self.state.x)
                self.assertEqual(self.runs_of(tab, other), [1, 0])

    def test_L5_a_service_as_a_value_of_its_own_is_not_looked_at_without_its_lock(self):
        self.state.x = Service()
        tab, other = self.tabs(2)
        self.click(tab, lambda: self.state.x.call())
        self.assertEqual(self.runs_of(tab, other), [1, 0])

        def locked():
            with self.locks["x"]:
                self.state.x.call()

        self.click(tab, locked)
        self.assertEqual(self.runs_of(tab, other), [1, 1])

    def test_L5_what_a_rerun_changes_in_place_without_a_lock_is_told_to_nobody(self):
        def script(session):
            self.state.x["model"].call()
            session.show("x", "a page")
            yield

        self.state.x = {"model": Service()}
        with self.assertLogs("server_state", "WARNING") as logs:
            tabs = self.tabs(4, script)
            self.world.settle(5)
            self.runs_of(*tabs)
            self.click(tabs[0])
            self.world.settle(5)
        self.assertEqual(self.runs_of(*tabs), [1, 1, 1, 1])
        self.assertEqual(len(logs.output), 1)

    def test_L5_does_not_look_at_what_another_holds(self):
        self.state.x = []
        tab, other = self.tabs(2)
        lock = self.locks["x"]

        def slowly(session):
            with lock:
                self.state.x.append("half")
                yield
                yield
                self.state.x.append("done")

        tab.click(slowly)
        for _ in range(3):
            self.world.step_runner(self.world.runners[0])
        other.click(does(lambda: self.state.x))
        while len(self.world.runners) > 1:
            self.world.step_runner(self.world.runners[1])
        self.world.step_inspector()
        while self.world.loop.soon:
            self.world.step_loop()
        self.assertEqual(self.runs_of(other), [1])
        self.world.settle()
        self.assertEqual(other.shown[None, "x"], "['half', 'done']")

    def test_L6_where_a_lock_is_held_at_every_look_the_next_release_looks(self):
        worker, next_one = types.SimpleNamespace(ctx=None), types.SimpleNamespace(ctx=None)
        self.state.x = []
        (other,) = self.tabs(1)
        with self.locks["x"]:
            self.state.x.append("told")
        self.in_thread(worker, self.locks["x"].acquire)
        self.world.settle(1.5)
        self.world.step_inspector()
        self.assertEqual(other.shown[None, "x"], "[]")
        self.in_thread(worker, self.locks["x"].release)  # no look comes between
        self.in_thread(next_one, self.locks["x"].acquire)
        self.world.settle(0.5)
        self.assertEqual(other.shown[None, "x"], "['told']")
        self.in_thread(next_one, self.locks["x"].release)

    def test_L6_a_value_in_hand_under_another_lock_for_ever(self):
        worker = types.SimpleNamespace(ctx=None)
        self.state.log = []
        (other,) = self.tabs(1, reads("log"))
        self.in_thread(worker, self.locks["worker"].acquire)
        self.in_thread(worker, lambda: self.state.log)
        with self.locks["log"]:
            self.state.log.append("told")
        self.world.settle(0.5)
        self.assertEqual(other.shown[None, "log"], "[]")
        self.world.settle(0.7)
        for _ in range(2):
            self.world.step_inspector()
        self.world.settle(0.5)
        self.assertEqual(other.shown[None, "log"], "['told']")

    def test_L6_a_lock_released_inside_a_longer_one_is_not_held(self):
        worker = types.SimpleNamespace(ctx=None)
        self.state.log = []
        (other,) = self.tabs(1, reads("log"))
        self.in_thread(worker, self.locks["for ever"].acquire)
        self.in_thread(worker, self.locks["log"].acquire)
        self.in_thread(worker, self.locks["log"].release)
        for number in range(3):
            with self.locks["log"]:
                self.state.log.append(number)
            self.world.settle(1.2)
            for _ in range(2):
                self.world.step_inspector()
            self.world.settle(0.5)
            self.assertEqual(other.shown[None, "log"], repr(list(range(number + 1))))

    def test_L3_however_long_a_lock_is_held(self):
        worker = types.SimpleNamespace(ctx=None)
        self.state.x = []
        (other,) = self.tabs(1)
        with self.locks["x"]:
            self.state.x.append("done")
        self.in_thread(worker, self.locks["x"].acquire)
        self.in_thread(worker, lambda: self.state.x.append("half"))
        for _ in range(5):
            self.world.settle(1.0)
            self.world.step_inspector()
        with self.locks["another"]:  # no release but its own looks at what it guards
            self.state.to_dict()["x"]
        self.world.settle()
        self.assertEqual(self.runs_of(other), [0])
        self.in_thread(worker, self.locks["x"].release)
        self.world.settle()
        self.assertEqual((self.runs_of(other), other.shown[None, "x"]), ([1], "['done', 'half']"))

    def test_L5_a_list_is_in_hand_once_it_was_assigned_or_made_by_setdefault(self):
        def slowly(session):
            mine = []
            self.state.x = mine
            made = self.state.setdefault("y", [])
            yield
            yield
            mine.append("told")
            made.append("told")

        def script(session):
            if session.page == "main":
                yield from reads("x", "y")(session)
            yield

        other, tab = self.tabs(1, script)[0], self.tabs(1, page="empty")[0]
        tab.click(slowly)
        while self.state.to_dict().get("y") is None:
            self.world.step_runner(self.world.runners[0])
        self.run_beside(other, "y", "[]")
        self.world.settle()
        self.assertEqual((other.shown[None, "x"], other.shown[None, "y"]), ("['told']", "['told']"))

    def test_L5_a_list_is_in_hand_though_it_took_the_place_of_an_equal_one(self):
        def replaces(session):
            mine = []
            self.state.x = mine
            yield
            mine.append("told")

        def script(session):
            if session.page == "main":
                session.show("x")
            yield

        self.state.x = []
        other, tab = self.tabs(1, script)[0], self.tabs(1, page="empty")[0]
        tab.click(replaces)
        self.world.settle()
        self.assertEqual(other.shown[None, "x"], "['told']")

    def test_L4_no_rerun_elsewhere_does_not_swallow_what_a_lock_holder_does(self):
        def slowly(session):
            with self.locks["x"]:
                self.state.x.x = "told"
                yield
                yield

        self.state.x = Point("old")
        tab, other = self.tabs(2)
        tab.click(slowly)
        while self.state.x.x != "told":
            self.world.step_runner(self.world.runners[0])
        with self.module.no_rerun:
            self.state.get("x")
        self.world.settle()
        self.assertEqual(other.shown[None, "x"], repr(Point("told")))

    def test_R4_what_is_changed_back_before_anybody_has_looked(self):
        """A queue: a tab puts a job in and shows it, and a worker takes it out at once."""

        def add():
            with self.locks["jobs"]:
                self.state.jobs.append("job")

        def add_without_a_lock(session):
            self.state.jobs.append("job")
            yield
            yield

        reader = types.SimpleNamespace(ctx=None)
        for action in (does(add), add_without_a_lock):
            for lock in ("jobs", "other"):
                with self.subTest(action=action, lock=lock):
                    self.state.jobs = []
                    self.world.settle()
                    tab, other = self.tabs(2, reads("jobs"))
                    self.in_thread(reader, self.locks["page"].acquire)
                    if lock == "jobs":  # then it does not matter who else has it in hand
                        self.in_thread(reader, lambda: self.state.jobs)
                    tab.click(action)
                    while "job" not in self.state.jobs:
                        self.world.step_runner(self.world.runners[0])
                    other.click()
                    self.run_beside(other, "jobs", "['job']")
                    with self.locks[lock]:
                        self.state.jobs.pop()
                    self.in_thread(reader, self.locks["page"].release)
                    self.world.settle()
                    for one in (tab, other):
                        self.assertEqual(one.shown[None, "jobs"], "[]")

    def there_and_back(self):
        """Give values, each with a change and what takes it back."""
        yield [], lambda x: x.append("busy"), lambda x: x.pop()
        yield Point("idle"), lambda x: setattr(x, "x", "busy"), lambda x: setattr(x, "x", "idle")

    def test_R4_what_is_changed_there_and_back_under_a_lock(self):
        """While somebody works: a tab that reads in the middle, without the lock, shows it until the release."""
        worker = types.SimpleNamespace(ctx=None)
        for value, change, back in self.there_and_back():
            with self.subTest(value):
                self.state.x, idle = value, repr(value)
                tab, other = self.tabs(2)
                self.in_thread(worker, self.locks["x"].acquire)
                self.in_thread(worker, lambda change=change: change(self.state.x))
                self.click(tab)
                self.assertIn("busy", tab.shown[None, "x"])
                self.world.settle(3)
                self.assertEqual(self.runs_of(tab, other), [1, 0], "nobody is rerun for what is half-done")
                self.in_thread(worker, lambda back=back: back(self.state.x))
                self.in_thread(worker, self.locks["x"].release)
                self.world.settle()
                self.assertEqual([one.shown[None, "x"] for one in (tab, other)], [idle] * 2)

    def test_R4_a_tab_appends_without_the_lock_that_another_holds(self):
        worker = types.SimpleNamespace(ctx=None)
        self.state.x = []
        (tab,) = self.tabs(1)
        self.in_thread(worker, self.locks["x"].acquire)
        self.in_thread(worker, lambda: len(self.state.x))
        self.click(tab, lambda: self.state.x.append("job"))
        self.assertEqual(tab.shown[None, "x"], "['job']")
        self.in_thread(worker, lambda: self.state.x.clear())
        self.in_thread(worker, self.locks["x"].release)
        self.world.settle()
        self.assertEqual(tab.shown[None, "x"], "[]")

    def test_R4_a_worker_that_keeps_the_list_and_takes_its_lock(self):
        jobs = self.state.x = []
        (tab,) = self.tabs(1)

        def add():
            with self.locks["x"]:
                self.state.x.append("job")

        tab.click(does(add))
        self.run_out()
        with self.locks["x"]:
            jobs.pop()
        self.world.settle()
        self.assertEqual(tab.shown[None, "x"], "[]")

    def test_R4_what_is_drawn_later_than_it_was_read(self):
        """A run has read the value before the lock was taken, and draws it while it is held."""

        def script(session):
            x = self.state.x
            yield
            session.show("x", repr(x))
            yield

        worker = types.SimpleNamespace(ctx=None)
        for value, change, back in self.there_and_back():
            with self.subTest(value):
                self.state.x, idle = value, repr(value)
                (tab,) = self.tabs(1, script)
                tab.click()
                while not any(entry.key == "x" for run in self.module._running for entry in run.messages_before):
                    self.world.step_runner(self.world.runners[0])
                self.in_thread(worker, self.locks["x"].acquire)
                self.in_thread(worker, lambda change=change: change(self.state.x))
                self.world.settle()
                self.assertIn("busy", tab.shown[None, "x"])
                self.in_thread(worker, lambda back=back: back(self.state.x))
                self.in_thread(worker, self.locks["x"].release)
                self.world.settle()
                self.assertEqual(tab.shown[None, "x"], idle)

    def test_R1_what_a_run_puts_in_and_takes_out_in_two_blocks_reruns_nobody(self):
        """It marks itself as at work, say: nobody has seen the mark."""

        def script(session):
            session.show("active")
            yield
            for change in (self.state.active.append, self.state.active.remove):
                with self.locks["active"]:
                    change(session.id)
            session.show("active")
            yield

        self.state.active = []
        tabs = self.tabs(3, script)
        tabs[0].click()
        self.run_out()
        self.world.settle()
        self.assertEqual(self.runs_of(*tabs), [1, 0, 0])

    def test_R4_what_was_changed_under_another_lock_is_changed_back_under_its_own(self):
        worker = types.SimpleNamespace(ctx=None)
        self.state.x = ["a"]
        (tab,) = self.tabs(1)
        self.in_thread(worker, self.locks["y"].acquire)
        self.in_thread(worker, lambda: self.state.x.append("b"))
        self.click(tab)
        with self.locks["x"]:
            self.state.x.pop()
        self.in_thread(worker, self.locks["y"].release)
        self.world.settle()
        self.assertEqual(tab.shown[None, "x"], "['a']")

    def test_R7_what_a_run_has_kept_and_changes_in_no_rerun_under_its_lock(self):
        def script(session):
            x = self.state.x
            session.show("x")
            yield
            with self.module.no_rerun, self.locks["x"]:
                x.append("quietly")
            yield

        self.state.x = []
        tab, other = self.tabs(2)
        self.world.script = script
        self.click(tab)
        self.assertEqual(other.shown[None, "x"], "[]")

    def test_C2_an_equal_value_is_assigned_over_what_a_transaction_has_changed(self):
        worker = types.SimpleNamespace(ctx=None)
        self.state.x = Point("a")
        (tab,) = self.tabs(1)
        self.in_thread(worker, self.locks["y"].acquire)
        self.in_thread(worker, lambda: setattr(self.state.x, "x", "b"))
        self.click(tab)
        self.state.x = Point("a")
        self.in_thread(worker, self.locks["y"].release)
        self.world.settle()
        self.assertEqual(tab.shown[None, "x"], repr(Point("a")))

    def test_L4_no_rerun_under_the_lock_of_a_key_that_it_does_not_read(self):
        self.state.x = []
        tab, other = self.tabs(2)

        def slowly(session):
            self.state.x.append("told")
            yield
            yield

        tab.click(slowly)
        while not self.state.x:
            self.world.step_runner(self.world.runners[0])
        with self.module.no_rerun, self.locks["x"]:
            self.state.y = 1
        self.world.settle()
        self.assertEqual([one.shown[None, "x"] for one in (tab, other)], ["['told']"] * 2)

    def test_L3_several_locks_taken_together_and_given_back_one_by_one(self):
        self.state.x = Point("old")
        (tab,) = self.tabs(1)
        worker = types.SimpleNamespace(ctx=None)
        self.in_thread(worker, self.locks["x", "y"].acquire)
        self.in_thread(worker, self.locks["y"].release)
        self.in_thread(worker, lambda: setattr(self.state, "x", Point("half-done")))
        self.world.settle()
        self.assertEqual(tab.shown[None, "x"], repr(Point("old")))
        self.in_thread(worker, lambda: setattr(self.state.x, "x", "new"))
        self.in_thread(worker, self.locks["x"].release)
        self.world.settle()
        self.assertEqual(tab.shown[None, "x"], repr(Point("new")))

    def test_L3_several_locks_taken_one_by_one_and_given_back_together(self):
        self.state.x = "old"
        (tab,) = self.tabs(1)
        self.locks["x"].acquire()
        self.locks["y"].acquire()
        self.locks["x", "y"].release()
        self.state.x = "new"
        self.world.settle()
        self.assertEqual(tab.shown[None, "x"], "'new'")

    def test_L1_a_run_leaves_one_of_two_locks(self):
        def leaves():
            self.locks["x", "y"].acquire()
            self.locks["y"].release()

        (tab,) = self.tabs(1)
        self.click(tab, leaves)
        self.assertFalse(self.locks["x"].locked())

    def test_R4_what_was_half_done_when_it_was_read_by_a_run_that_ends_after_the_release(self):
        for value, change, back in self.there_and_back():
            with self.subTest(value=value):
                self.state.x = value
                before = repr(value)
                worker = types.SimpleNamespace(ctx=None)
                tab, other = self.tabs(2, reads("x"))
                self.in_thread(worker, self.locks["x"].acquire)
                self.in_thread(worker, lambda change=change: change(self.state.x))
                self.reads_slowly(tab)
                self.world.step_inspector()
                self.in_thread(worker, lambda back=back: back(self.module._entry("x").value))
                self.in_thread(worker, self.locks["x"].release)
                self.world.settle()
                self.assertEqual([one.shown[None, "x"] for one in (tab, other)], [before] * 2)

    def test_R4_what_was_half_done_though_another_look_comes_in_between(self):
        before, entry = self.module._fingerprint, self.module._entry("x")

        def read_quietly():
            with self.module.no_rerun:
                len(self.state.x)

        for interferes in (read_quietly, lambda: setattr(self.state, "x", ["idle"])):
            self.state.x = ["idle"]
            worker = types.SimpleNamespace(ctx=None)
            (tab,) = self.tabs(1, reads("x"))
            self.in_thread(worker, self.locks["x"].acquire)
            self.in_thread(worker, lambda: self.state.x.__setitem__(0, "busy"))
            tab.click()
            self.run_out()

            def looks(value, worker=worker, interferes=interferes):
                after = before(value)
                if value == ["busy"]:
                    with mock.patch.object(self.module, "_fingerprint", before):
                        value[0] = "idle"
                        self.in_thread(worker, self.locks["x"].release)
                        self.in_thread(types.SimpleNamespace(ctx=None), interferes)
                return after

            with mock.patch.object(self.module, "_fingerprint", looks):
                self.world.step_inspector()
            self.assertEqual(entry.value, ["idle"])
            self.world.settle()
            self.assertEqual(tab.shown[None, "x"], "['idle']")

    def test_R4_what_was_half_done_under_another_lock(self):
        for value, change, back in self.there_and_back():
            with self.subTest(value=value):
                self.state.x = value
                before = repr(value)
                worker = types.SimpleNamespace(ctx=None)
                (tab,) = self.tabs(1, reads("x"))
                self.in_thread(worker, self.locks["y"].acquire)
                self.in_thread(worker, lambda change=change: change(self.state.x))
                self.click(tab)
                self.assertNotEqual(tab.shown[None, "x"], before)
                self.in_thread(worker, lambda back=back: back(self.state.x))
                self.in_thread(worker, self.locks["y"].release)
                self.world.settle()
                self.assertEqual(tab.shown[None, "x"], before)

    def test_R4_what_was_half_done_when_a_second_run_read_it(self):
        """The first has read it before the change. The holder: a thread, or a run beside one that has it in hand."""
        for value, change, back in self.there_and_back():
            for holder in ("a thread", "a run"):
                with self.subTest(value=value, holder=holder):
                    self.state.x = value
                    before, steps = repr(value), [change, back]
                    worker = types.SimpleNamespace(ctx=None)

                    def job(session, steps=steps):
                        with self.locks["x"]:
                            while steps:
                                yield
                                if session.goes_on:
                                    session.goes_on = False
                                    steps.pop(0)(self.module._entry("x").value)

                    tab, first, second = self.tabs(3, reads("x"))
                    self.world.script = slowly(60)
                    first.click()
                    self.beside(3)
                    if holder == "a run":
                        tab.goes_on = False
                        tab.click(job)
                    else:
                        self.in_thread(worker, self.locks["x"].acquire)
                    self.beside(5)
                    for shown in (None, before):
                        if holder == "a run":
                            tab.goes_on = True
                        else:
                            self.in_thread(worker, lambda steps=steps: steps.pop(0)(self.module._entry("x").value))
                        self.beside(3)
                        if shown is None:
                            self.assertNotEqual(repr(value), before)
                            second.click()
                            self.beside(10)
                            self.assertNotEqual(second.shown[None, "x"], before)
                    if holder == "a thread":
                        self.in_thread(worker, self.locks["x"].release)
                    self.beside(5)
                    self.assertFalse(self.locks["x"].locked())
                    self.world.settle()
                    self.assertEqual(second.shown[None, "x"], before)

    def test_L3_what_is_half_done_is_not_told_since_somebody_has_read_it(self):
        self.state.x = Point("old")
        tab, other = self.tabs(2)
        worker = types.SimpleNamespace(ctx=None)
        self.in_thread(worker, self.locks["y"].acquire)
        for number in range(4):
            self.in_thread(worker, lambda number=number: setattr(self.state.x, "x", number))
            if number < 2:
                tab.click()
            self.beside(200)
        self.assertEqual(self.runs_of(tab, other), [2, 0])
        self.in_thread(worker, self.locks["y"].release)
        self.beside(50)
        self.assertEqual(self.runs_of(tab, other), [1, 1])

    def test_R7_no_rerun_tells_nobody_though_somebody_reads_in_the_middle(self):
        for name in "xy":
            for value, change, _ in self.there_and_back():
                with self.subTest(name=name, value=value):
                    self.state.x = value
                    tab, other = self.tabs(2, slowly(20))
                    worker, context = types.SimpleNamespace(ctx=None), contextvars.Context()
                    for do in (
                        self.module.no_rerun.__enter__,
                        self.locks[name].acquire,
                        lambda change=change: change(self.state.x),
                        None,
                        self.locks[name].release,
                        self.module.no_rerun.__exit__,
                    ):
                        if do is None:
                            tab.click()
                            self.beside(5)
                        else:
                            self.in_thread(worker, functools.partial(context.run, do))
                    self.beside(100)
                    self.assertEqual(self.runs_of(tab, other), [1, 0])

    def test_L4_who_reads_in_the_middle_is_not_the_author(self):
        def script(session):
            if session.pressed:
                session.pressed = False
                with self.locks["x"]:
                    yield
                    self.state.x.x = "new"
                    yield
            yield from slowly(8)(session)

        self.state.x = Point("old")
        tab, other = self.tabs(2, script)
        tab.pressed = True
        tab.click()
        while not self.locks["x"].locked():
            self.world.step_runner(self.world.runners[0])
        other.click()
        self.beside(100)
        self.assertEqual(tab.shown[None, "x"], other.shown[None, "x"])
        self.assertEqual(self.runs_of(tab, other), [1, 2])

    def test_R6_a_chain_of_changes_in_place_ends_beside_those_who_read_in_the_middle(self):
        def script(session):
            session.show("x")
            while not self.locks["x"].acquire(blocking=False):
                yield
            yield
            self.state.x.x += 1
            yield
            self.locks["x"].release()

        self.state.x = Point(0)
        tabs = self.tabs(4)
        self.world.script = script
        with self.assertLogs("server_state", "WARNING"):
            tabs[0].click()
            self.beside(1000)
        self.assertLess(max(self.runs_of(*tabs)), 10)

    def test_L1_a_lock_whose_acquire_was_interrupted(self):
        (tab,) = self.tabs(1)
        self.locks["x"]._lock.acquire()
        self.locks["x"].release()
        with self.locks["x"]:
            self.state.x = "new"
            self.world.settle()
            self.assertEqual(tab.shown[None, "x"], "None")
        self.world.settle()
        self.assertEqual(tab.shown[None, "x"], "'new'")

    def test_L1_a_lock_is_not_taken_where_its_transaction_cannot_be_made(self):
        with mock.patch.object(self.module, "_local", object()), self.assertRaises(AttributeError):
            self.locks["x"].acquire()
        self.assertFalse(self.locks["x"].locked())

    def test_T2_the_inspector_is_woken_by_the_collector_while_it_is_woken(self):
        inspector = load()._inspector
        notify = inspector.wake._cond.notify_all

        def collected_meanwhile():
            inspector.start()
            notify()

        inspector.wake._cond.notify_all = collected_meanwhile
        thread = threading.Thread(target=inspector.start, daemon=True)
        thread.start()
        thread.join(5)
        self.assertFalse(thread.is_alive())

    def test_L5_what_a_run_first_has_in_hand_in_no_rerun_it_may_change_later(self):
        self.state.x = []

        def work():
            with self.module.no_rerun:
                log = self.state.x
                log.append("quiet")
            self.assertEqual(self.runs_of(other), [0])
            log.append("loud")

        (other,) = self.tabs(1, lambda session: reads("x" if session.page == "main" else "y")(session))
        (tab,) = self.tabs(1, page="second")
        self.click(tab, work)
        self.assertEqual(other.shown[None, "x"], "['quiet', 'loud']")

    def test_S1_a_lock_that_is_held_for_ever_keeps_no_runs(self):
        self.state.x = []
        worker = types.SimpleNamespace(ctx=None)
        (tab,) = self.tabs(1)
        self.in_thread(worker, self.locks["x"].acquire)
        for _ in range(20):
            self.click(tab)
            self.world.settle(1)
        tab.click()
        late = types.SimpleNamespace(ctx=self.world.runners[0].ctx)  # a thread that goes on when its run is over
        self.world.settle(1)
        for _ in range(20):
            self.in_thread(late, lambda: self.state.x)
            self.world.settle(1)
        suspects = [one for many in self.module._inspector.suspected.values() for one in many]
        self.assertLess(len(suspects), 3)
        self.assertEqual([one for one in suspects if isinstance(one.author, self.module._Run)], [])
        self.in_thread(worker, self.locks["x"].release)
        self.world.settle()
        self.assertEqual(self.module._inspector.suspected, {})

    def reads_slowly(self, tab):
        """Have a run under way that has read x."""
        self.world.script = slowly(3)
        tab.click()
        entry = self.module._entry("x")
        while not any(entry in notes for run in self.module._running for notes in run.readers.values()):
            self.world.step_runner(self.world.runners[0])

    def test_R4_a_look_before_a_change_leaves_it_to_others_to_tell(self):
        """Its own transaction may never end: it is that of a leader."""
        leader = types.SimpleNamespace(ctx=None)
        self.state.x = []
        tabs = self.tabs(2)

        def poll():
            with self.locks["x"]:
                len(self.state.x)

        def add():
            with self.locks["x"]:
                self.state.x.append("job")

        self.in_thread(leader, self.locks["leader"].acquire)
        for number, first in enumerate((lambda: len(self.state.x), poll)):
            tabs[0].click(does(add))
            self.run_out()
            self.in_thread(leader, first)
            for _ in range(10):
                self.world.settle(1)
                self.world.step_inspector()
                self.in_thread(leader, first)
            for tab in tabs:
                self.assertEqual(tab.shown[None, "x"], repr(["job"] * (number + 1)))

    def test_L4_who_only_reads_is_not_the_author_of_what_a_look_before_a_change_finds(self):
        def nested():
            with self.locks["y"]:
                self.state.x.append(1)
                with self.locks["x"]:
                    pass

        def without_a_lock():
            self.state.x.append(1)
            with self.locks["x"]:
                len(self.state.x)

        for change in (nested, without_a_lock):
            with self.subTest(change.__name__):
                self.state.x = []
                (tab,) = self.tabs(1, reads("x"))
                self.reads_slowly(tab)
                change()
                self.world.settle()
                self.assertEqual(tab.shown[None, "x"], "[1]")

    def test_R4_what_a_run_shows_of_what_it_has_assigned(self):
        """It need not read it again, before it is changed back."""

        def script(session):
            if session.pressed:
                session.pressed = None
                len(self.state.x)
                jobs = self.state.x = ["first"]
                with self.locks["x"]:
                    jobs.append("job")
                session.show("x", repr(jobs))
            else:
                session.show("x")
            yield

        self.state.x = []
        (tab,) = self.tabs(1, script)
        tab.pressed = True
        tab.click()
        self.run_out()
        with self.locks["x"]:
            self.module._entry("x").value.pop()
        self.world.settle()
        self.assertEqual(tab.shown[None, "x"], "['first']")

    def test_R7_two_blocks_under_a_lock_in_one_no_rerun(self):
        self.state.x = []
        tab, other = self.tabs(2)
        self.reads_slowly(tab)
        with self.module.no_rerun:
            for number in range(2):
                with self.locks["x"]:
                    self.state.x.append(number)
        self.world.settle()
        self.assertEqual([one.shown[None, "x"] for one in (tab, other)], ["[]"] * 2)

    def test_L6_looks_are_few_however_often_a_lock_is_taken_or_a_value_read(self):
        def fill():
            for number in range(100):
                with self.locks["x"]:
                    self.state.x.append(number)

        def poll():
            for _ in range(100):
                with self.locks["x"]:
                    repr(self.state.x)

        worker, before = types.SimpleNamespace(ctx=None), self.module._fingerprint
        for name in ("fill", "fill in a run", "poll beside a run", "poll an object", "read what is held", "too large"):
            with self.subTest(name):
                self.state.x = [b"large" * 50]
                (tab,) = self.tabs(1, reads("x"))
                if name == "poll an object":
                    self.state.x = Point("a")
                    self.world.settle()
                    with self.locks["x"]:
                        self.state.x.x = "b"
                if name == "too large":
                    self.module._FINGERPRINT_LIMIT = 100
                    self.state.x = [b"large" * 51]
                    self.world.settle()
                with mock.patch.object(self.module, "_fingerprint", side_effect=before) as look:
                    if name == "fill":
                        fill()
                    elif name == "poll an object":  # its own ways to be pickled may wait for this thread
                        poll()
                    elif name == "poll beside a run":
                        self.reads_slowly(tab)
                        poll()
                    elif name == "fill in a run":
                        self.world.script = does(fill)
                        tab.click()
                        self.run_out()
                    else:
                        self.in_thread(worker, self.locks["x"].acquire)
                        self.world.script = does(lambda: [self.state.x for _ in range(100)])
                        tab.click()
                        self.run_out()
                        self.in_thread(worker, self.locks["x"].release)
                    self.assertLess(look.call_count, 1 if name in ("too large", "poll an object") else 5)
                    if name == "too large":
                        self.world.settle()
                        self.assertEqual(look.call_count, 0)
                self.world.settle()

    def test_L4_two_blocks_of_no_rerun_that_end_at_once(self):
        """One has looked before the other's change, and says so while the other looks."""
        kept, before, entry = [], self.module._fingerprint, self.module._entry("x")

        def ends_meanwhile(value):
            self.module._fingerprint = before
            entry.fingerprint = before([])
            return before(value)

        class Store(self.module._Alone):
            def offer(self, entry, value, change, is_told):
                kept.append(list(value))
                return True

        self.state.x = []
        with mock.patch.object(self.module, "_store", Store()), self.module.no_rerun:
            self.state.x.append("mine")
            self.module._fingerprint = ends_meanwhile
        self.assertEqual(kept, [["mine"]])

    def test_C1_a_no_rerun_that_ends_between_the_steps_of_an_assignment(self):
        """The fingerprint is the new value's already, and the value still the old one."""
        entry, before = self.module._entry("x"), self.module._fingerprint
        self.state.x = ["old"]
        entry.fingerprint = before(["new"])

        def assigned_meanwhile(value):
            self.module._fingerprint = before
            looked = before(value)
            entry.value = ["new"]
            return looked

        self.module._fingerprint = assigned_meanwhile
        self.module._inspector.take_for_told(entry)
        self.assertEqual(entry.fingerprint.content, before(["new"]).content)

    def test_T1_the_end_of_a_no_rerun_lets_go_of_nothing_under_the_master_lock(self):
        """What it looks at is replaced meanwhile, so that it looks again."""
        depths, before = [], self.module._fingerprint

        class Last:
            def __del__(value):  # noqa: N805
                depths.append(self.module._master._depth)

        def replaced_meanwhile(value):
            self.module._fingerprint = before
            looked = before(value)
            self.in_thread(types.SimpleNamespace(ctx=None), lambda: self.state.update(x=[]))
            return looked

        self.state.x = [Last()]
        with self.module.no_rerun:
            self.state.get("x")
            self.module._fingerprint = replaced_meanwhile
        self.assertEqual(depths, [0])

    def test_L5_a_value_that_raises_SystemExit_does_not_end_the_looks(self):
        class Value:
            def __getstate__(self):
                sys.exit()

        self.state.update(x=[], y=[])
        (tab,) = self.tabs(1, reads("y"))
        with self.locks["x", "y"]:
            self.state.x.append(Value())
            self.state.y.append(1)
        self.world.settle()
        self.assertEqual(tab.shown[None, "y"], "[1]")

    def test_L6_a_thread_that_cannot_be_started_is_started_later(self):
        module = load()
        log = module.server_state.log = []
        fails = mock.patch.object(module.threading, "Thread", side_effect=RuntimeError("no new thread"))
        with fails, module.server_state_lock["log"]:
            log.append(1)
        self.assertEqual(module._inspector.suspected, {}, "the thread itself has looked")
        with module.server_state_lock["log"]:
            log.append(2)
        until = time.monotonic() + 30
        while module._inspector.suspected and time.monotonic() < until:
            time.sleep(0.001)
        self.assertEqual(module._inspector.suspected, {})

    def test_L5_what_is_read_in_no_rerun_is_told_to_nobody(self):
        self.state.x = []
        tab, other = self.tabs(2)

        def work():
            with self.module.no_rerun:
                self.state.x.append(1)

        self.click(tab, work)
        self.assertEqual(self.runs_of(tab, other), [1, 0])

    def test_L1_is_a_mapping_of_the_locks_that_were_asked_for(self):
        self.assertEqual((len(self.locks), "room" in self.locks, None in self.locks), (0, False, False))
        self.locks["room"], self.locks["a", "b"]
        self.assertEqual((sorted(self.locks), "room" in self.locks), (["a", "b", "room"], True))

    def test_L1_a_lock_left_behind_silences_nobody(self):
        def forgets(session):
            self.locks["lost"].acquire(blocking=False)
            self.state.get("y")
            yield
            raise StopScript

        tab, other = self.tabs(2)
        tab.click(forgets)
        self.world.settle()
        self.assertTrue(is_idle(self.module))
        self.assertTrue(self.locks["lost"].acquire(blocking=False), "its run is over")
        self.locks["lost"].release()
        self.click(tab, lambda: setattr(self.state, "x", "told"))
        self.assertEqual(other.shown[None, "x"], "'told'")

    def test_L2_several_locks_are_taken_in_one_order_whatever_they_are_asked_for_in(self):
        locks = load().server_state_lock
        with locks["a"]:
            thread = threading.Thread(target=lambda: locks["b", "a"].acquire(timeout=0.2))
            thread.start()
            while thread.is_alive():
                self.assertTrue(locks["b"].acquire(blocking=False))  # else it has b, and waits for a
                locks["b"].release()

    def test_L1_a_script_that_exits_python_is_over_too(self):
        def leaves(session):
            self.state.x.append("b")
            self.locks["m"].acquire(blocking=False)
            yield
            raise SystemExit

        def main(runner):  # in 1.67 such a run has no end but its runner's
            try:
                yield from make_runs(runner)
            except SystemExit:
                client_state = ClientState()
                runner.send("SHUTDOWN", client_state=client_state)
                runner.world.loop.call_soon_threadsafe(runner.session.over, runner, client_state)

        def exits(session):
            session.show("x")
            yield
            if session is tab:
                raise SystemExit

        make_runs = Runner.main
        self.state.x = ["a"]
        tab, other = self.tabs(2)
        with mock.patch.object(Runner, "main", main):
            self.click(tab)
            tab.click(leaves)
            self.world.settle()
            self.assertEqual(other.shown[None, "x"], "['a', 'b']")
            self.assertTrue(self.locks["m"].acquire(blocking=False))
            self.locks["m"].release()
            self.runs_of(tab, other)
            self.world.script = exits
            tab.click()
            self.world.settle()
            self.state.x = "new"
            self.world.settle(5)
        self.assertLessEqual(self.runs_of(tab)[0], 3)

    def test_L1_a_lock_that_a_thread_leaves_is_released_at_its_end(self):
        module = load()
        lock = module.server_state_lock["left"]

        def leaves():
            lock.acquire()
            module.server_state_lock["a", "left"].acquire()
            module.server_state.x = 1

        for _ in range(20):
            thread = threading.Thread(target=leaves)
            thread.start()
            thread.join()
            self.assertTrue(lock.acquire(timeout=10))
            lock.release()
            self.assertFalse(lock.locked())
        entry, until = module._present["x"], time.monotonic() + 30
        while entry.told != entry.version and time.monotonic() < until:
            time.sleep(0.001)
        self.assertEqual(entry.told, entry.version)
        del thread
        gc.collect()
        self.assertTrue(is_idle(module))

    def test_L1_though_another_thread_goes_through_the_transactions_just_then(self):
        module = load()
        lock, seen = module.server_state_lock["left"], []

        def leaves():
            lock.acquire()
            seen.append(module._local.transaction)

        thread = threading.Thread(target=leaves)
        thread.start()
        thread.join()
        self.assertTrue(lock.acquire(timeout=10))
        lock.release()

    def test_L1_python_ends_though_a_thread_has_a_lock(self):
        code = (
            "import threading, time, server_state as s\n"
            "def hold():\n    s.server_state_lock['x'].acquire()\n    s.server_state.x = [1]\n    time.sleep(60)\n"
            "threading.Thread(target=hold, daemon=True).start()\n"
            "while 'x' not in s.server_state:\n    time.sleep(0.001)\n"
            "s.server_state_lock['y'].acquire()\ns.server_state.y = 1\n"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=FILE.parent, capture_output=True, text=True, timeout=30)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))

    def test_L1_locked(self):
        module = load()
        locks, seen = module.server_state_lock, []
        locks["a"], locks["b"]

        def look():
            seen.append((locks["a"].locked(), locks["b"].locked(), locks["a", "b"].locked()))

        def elsewhere():
            thread = threading.Thread(target=look)
            thread.start()
            thread.join()

        look()
        with locks["a"]:
            look()
            elsewhere()
        elsewhere()
        free, held = (False, False, False), (True, False, True)
        self.assertEqual(seen, [free, held, held, free])

    def test_L1_asking_for_a_lock_with_get_does_not_make_it(self):
        self.assertEqual((self.locks.get("x"), self.locks.get("x", 1), len(self.locks)), (None, 1, 0))
        self.assertIs(self.locks.get("x"), None)
        self.assertIs(self.locks["x"], self.locks.get("x"))

    def test_L1_what_a_thread_changed_that_ends_with_a_lock_is_told(self):
        log = self.state.log = []
        one, two = self.tabs(1)[0], self.tabs(1, reads("log"))[0]
        self.locks["log"].acquire()
        self.state.x = "told"
        log.append("told")
        self.world.settle()
        self.assertEqual((one.shown[None, "x"], two.shown[None, "log"]), ("None", "[]"))
        vars(self.world).pop("local")  # the thread's end
        self.world.script = lambda session: reads("x" if session is one else "log")(session)
        self.world.settle()
        self.assertEqual((one.shown[None, "x"], two.shown[None, "log"]), ("'told'", "['told']"))

    def test_L1_a_run_leaves_locks_and_its_thread_goes_on(self):
        def leaves(session):
            self.state.get("x")
            self.locks["a", "b"].acquire(blocking=False)
            yield

        def locked():
            with self.locks["x"]:
                self.state.x.x = "told"

        def script(session):
            session.show("x")
            yield
            yield from session.fragment("f", reads())

        self.state.x = Point("old")

        tab, other = self.tabs(2, script)
        tab.click(leaves)
        self.world.step_runner(self.world.runners[0])
        tab.click(does(locked), fragment="f")  # waits for the same runner
        seen = []
        while self.world.runners:
            self.world.step_runner(self.world.runners[0])
            seen.append(self.locks["a"].locked())
        self.assertEqual((len(tab.runs), True in seen, seen[-5:]), (2, True, [False] * 5))
        self.world.settle()
        self.assertEqual(other.shown[None, "x"], repr(Point("told")))

    def test_L3_what_was_assigned_and_changed_in_place_is_told_once_however_late_the_look(self):
        (tab,) = self.tabs(1, reads("log", "n"))
        with self.locks["log"]:
            self.state.setdefault("log", []).append(1)
            self.state.n = 1
        for _ in range(40):  # while the inspector is busy
            self.world.pass_time(0.05)
            while self.world.loop.soon:
                self.world.step_loop()
        self.assertEqual(self.world.ours, [])
        self.world.settle()
        self.assertEqual((self.runs_of(tab), tab.shown[None, "log"], tab.shown[None, "n"]), ([1], "[1]", "1"))

    def test_L3_what_others_published_since_is_told_once(self):
        def slowly(session):
            with self.locks["x"]:
                self.state.x = -1
                yield
                yield

        tab, other = self.tabs(2)
        tab.click(slowly)
        while self.state.to_dict().get("x") != -1:
            self.world.step_runner(self.world.runners[0])
        self.state.x = 8
        self.run_beside(other, "x", "8")  # the other's rerun, before the release
        self.world.settle()
        self.assertEqual((other.shown[None, "x"], self.runs_of(other)), ("8", [1]))

    def test_L3_a_release_tells_also_of_what_a_longer_transaction_has_changed_since(self):
        def counts(session):
            session.show("keys", str(len(self.state)))
            yield

        (tab,) = self.tabs(1, counts)
        worker, short = types.SimpleNamespace(ctx=None), types.SimpleNamespace(ctx=None)
        self.in_thread(worker, self.locks["worker"].acquire)
        self.in_thread(short, self.locks["b"].acquire)
        self.in_thread(short, lambda: setattr(self.state, "b", 1))
        self.in_thread(worker, lambda: setattr(self.state, "result", 1))
        self.in_thread(short, self.locks["b"].release)
        self.world.settle()
        self.assertEqual((tab.shown[None, "keys"], self.runs_of(tab)), ("2", [1]))
        self.in_thread(worker, self.locks["worker"].release)
        self.world.settle()
        self.assertEqual(self.runs_of(tab), [0])

    def test_L3_a_lock_that_is_taken_while_its_value_is_looked_at(self):
        module, worker = self.module, types.SimpleNamespace(ctx=None)
        self.state.log = [0]
        (tab,) = self.tabs(1, reads("log"))

        def half():
            self.locks["log"].acquire()
            self.state.log.append("half")

        def fingerprint(value):
            with mock.patch.object(module, "_fingerprint", look):
                self.in_thread(worker, half)
            return look(value)

        look = module._fingerprint
        with self.locks["log"]:
            self.state.get("log")
        with mock.patch.object(module, "_fingerprint", fingerprint):
            self.world.step_inspector()
        self.world.settle(0.5)
        self.assertEqual((tab.shown[None, "log"], self.runs_of(tab)), ("[0]", [0]))
        self.in_thread(worker, self.locks["log"].release)
        self.world.settle()
        self.assertEqual(tab.shown[None, "log"], "[0, 'half']")

    def test_L4_who_only_read_under_another_lock_is_not_the_author(self):
        self.state.chat = []
        reader, author, third = self.tabs(3, reads("chat"))

        def looks(session):
            with self.locks["ui"]:
                self.state.get("chat")
                yield
                yield

        def writes(session):
            with self.locks["chat"]:
                self.state.chat.append("hello")
                yield

        reader.click(looks)
        author.click(writes)
        self.world.settle()
        self.assertEqual([tab.shown[None, "chat"] for tab in (reader, author, third)], ["['hello']"] * 3)

    def test_L5_an_equal_object_in_anothers_place(self):
        self.state.users = {}
        user = dataclasses.make_dataclass("User", ["name"], frozen=True)
        (tab,) = self.tabs(1, reads("users"))
        self.click(tab, lambda: self.state.users.update(Ada=user("Ada")))
        _, other = self.tabs(2, reads("users"))
        self.click(tab, lambda: self.state.users.update(Ada=user("Ada")))
        self.assertEqual(self.runs_of(other), [0])
        self.click(tab, lambda: self.state.users.update(Ada=user("Bob")))
        self.assertEqual(self.runs_of(other), [1])

    def test_L5_no_rerun_does_not_swallow_what_another_did(self):
        self.state.log = []
        author, quiet, third = self.tabs(3, reads("log"))

        def appends(session):
            self.state.log.append("hello")
            yield
            yield

        def counts():
            with self.module.no_rerun:
                len(self.state.log)

        author.click(appends)
        for _ in range(3):
            self.world.step_runner(self.world.runners[0])
        quiet.click(does(counts))
        while len(self.world.runners) > 1:
            self.world.step_runner(self.world.runners[1])
        self.world.settle()
        self.assertEqual(third.shown[None, "log"], "['hello']")

    def test_L5_no_rerun_does_not_swallow_what_another_did_under_the_lock_meanwhile(self):
        log = self.state.log = []
        _, third = self.tabs(2, reads("log"))
        with self.module.no_rerun:
            self.assertIs(self.state.log, log)

            def by_another():
                with self.locks["log"]:
                    self.state.log.append("told")

            self.in_thread(types.SimpleNamespace(ctx=None), by_another)
            log.append("quiet")
        self.world.settle()
        self.assertEqual(third.shown[None, "log"], "['told', 'quiet']")

    def test_L6_no_rerun_is_quiet_though_its_lock_was_held_at_every_look(self):
        def append():
            with self.locks["x"]:
                self.state.x.append(1)

        self.state.x = []
        tab, other = self.tabs(2)
        self.click(tab, append)
        self.assertEqual(self.runs_of(tab, other), [1, 1])
        self.module._inspector.overdue.add(self.module._entry("x"))
        with self.module.no_rerun:
            append()
        self.world.settle()
        self.assertEqual(self.runs_of(tab, other), [0, 0])

    def test_L5_no_rerun_does_not_swallow_what_its_own_thread_did_before(self):
        self.state.log = []
        author, third = self.tabs(2, reads("log"))

        def locked():
            with self.locks["log"]:
                self.state.log.append("locked")
                with self.module.no_rerun:
                    self.state.log.append("quiet")

        def unlocked():
            self.state.log.append("unlocked")
            with self.module.no_rerun:
                self.state.log.append("quiet")

        for function in (locked, unlocked):
            self.click(author, function)
            self.assertEqual(third.shown[None, "log"], repr(self.state.to_dict()["log"]))

    def test_L5_a_rerun_that_changes_under_a_lock_before_a_quiet_block_tells(self):
        def script(session):
            session.show("log")
            yield
            if session is bot and len(self.state.to_dict()["log"]) == 1:
                with self.locks["log"]:
                    self.state.log.append("answer")
                    with self.module.no_rerun:
                        self.state.log.append("quiet")
            yield

        self.state.log, bot = [], None
        bot, other = self.tabs(2, script)

        def ask():
            with self.locks["log"]:
                self.state.log.append("question")

        self.in_thread(types.SimpleNamespace(ctx=None), ask)
        self.world.settle()
        self.assertEqual(other.shown[None, "log"], "['question', 'answer', 'quiet']")

    def test_R7_heartbeats_in_no_rerun_tell_nobody_though_others_have_the_value_in_hand(self):
        for is_assigned in (False, True):
            self.state.users = {}
            one, two = self.tabs(2, reads("users"))
            one.click()
            for _ in range(2):
                self.world.step_runner(self.world.runners[0])  # it has the users in hand
            with self.module.no_rerun:
                users = self.state.users
                users["me"] = "now"
                if is_assigned:
                    self.state.users = users
            self.world.settle()
            self.assertEqual(self.runs_of(one, two), [1, 0])

    def test_L5_an_equal_value_assigned_over_what_another_run_is_changing(self):
        def script(session):
            session.show("cart")
            yield
            yield
            yield

        self.state.cart = []
        (author,) = self.tabs(1, script)
        author.click(does(lambda: self.state.cart.append("apple")))
        for _ in range(4):
            self.world.step_runner(self.world.runners[0])
        while self.world.loop.soon:
            self.world.step_loop()
        self.assertEqual(author.shown[None, "cart"], "['apple']")
        self.state.cart = []
        self.world.settle()
        self.assertEqual(author.shown[None, "cart"], "[]")

    def test_L5_no_rerun_does_not_swallow_what_it_replaces(self):
        self.state.log = []
        author, third = self.tabs(2, reads("log"))
        author.click(does(lambda: self.state.log.append("hello")))
        self.run_out()
        with self.module.no_rerun:
            self.state.log = ["quiet"]
        self.world.settle()
        self.assertEqual(third.shown[None, "log"], "['quiet']")

    def test_L5_no_rerun_does_not_swallow_what_is_to_be_looked_at(self):
        self.state.log = []
        author, third = self.tabs(2, reads("log"))
        author.click(does(lambda: self.state.log.append("hello")))
        self.run_out()
        with self.module.no_rerun:
            len(self.state.log)
        self.world.settle()
        self.assertEqual(third.shown[None, "log"], "['hello']")

    def test_R7_what_a_lock_guards_in_no_rerun_is_told_to_nobody(self):
        log = self.state.log = []
        one, two = self.tabs(2, reads("log"))
        with self.module.no_rerun, self.locks["log"]:
            log.append("quiet")
        self.click(one)
        self.assertEqual(self.runs_of(one, two), [1, 0])

    def test_L6_a_release_and_an_end_do_not_look(self):
        self.state.x = []
        tab, _ = self.tabs(2)
        looks = []
        look = self.module._fingerprint
        self.module._fingerprint = lambda value: looks.append(value) or look(value)

        def action(session):
            with self.locks["x"]:
                self.state.x.append(1)
            yield

        tab.click(action)
        while self.world.runners:
            self.world.step_runner(self.world.runners[0])
        self.assertEqual(looks, [])
        self.world.settle()
        self.assertEqual(looks[0], [1])

    def test_L6_a_value_found_too_large_is_not_looked_at_again(self):
        self.state.x = [bytearray(self.module._FINGERPRINT_LIMIT + 1)]
        self.assertFalse(self.module._present["x"].fingerprint.may_change)

    def test_L6_an_assignment_back_to_what_was_counts(self):
        self.state.x = []
        (tab,) = self.tabs(1)
        with self.locks["x"]:
            self.state.x.append(1)
        tab.click()
        self.run_out()  # it sees what was between
        self.state.x = []
        self.world.settle()
        self.assertEqual(tab.shown[None, "x"], "[]")

    def test_L6_who_only_read_is_not_taken_for_the_author_when_others_never_let_go(self):
        self.state.x = []
        one, two = self.tabs(2)
        one.click()
        self.run_out()
        with self.locks["x"]:
            self.state.x.append("late")
            self.world.settle(1.5)
            self.world.step_inspector()
        self.world.settle()
        self.assertEqual([tab.shown[None, "x"] for tab in (one, two)], ["['late']"] * 2)

    def test_L6_the_last_to_be_named_is_not_taken_for_the_author_of_all(self):
        self.state.x = []
        one, two, third = self.tabs(3)

        def appends(session):
            self.state.x.append("two")
            yield
            yield

        one.click()
        for _ in range(2):
            self.world.step_runner(self.world.runners[0])  # it has read what was before
        two.click(appends)
        for _ in range(3):
            self.world.step_runner(self.world.runners[1])
        for _ in range(3):
            self.world.step_runner(self.world.runners[0])
        self.world.step_inspector()  # while the second has it in hand
        self.world.settle()
        self.assertEqual([tab.shown[None, "x"] for tab in (one, two, third)], ["['two']"] * 3)

    def test_L6_what_is_named_during_a_look(self):
        """It may have been changed before the value was looked at, or after it."""
        look = self.module._fingerprint
        for is_before in (True, False):
            self.state.x = []
            one, two = self.tabs(2)

            def meanwhile(value, two=two, is_before=is_before):
                self.module._fingerprint = look
                found = look(value)
                two.click(does(lambda: self.state.x.append("two")))
                self.run_out()
                return look(value) if is_before else found

            one.click()
            self.run_out()
            self.module._fingerprint = meanwhile
            self.world.step_inspector()
            self.world.settle()
            self.assertEqual([tab.shown[None, "x"] for tab in (one, two)], ["['two']"] * 2)

    def test_L6_two_looks_at_once(self):
        look, thread = self.module._fingerprint, types.SimpleNamespace(ctx=None)

        def append(text):
            with self.locks["x"]:
                self.state.x.append(text)

        def meanwhile(value):
            self.module._fingerprint = look
            found = look(value)
            self.in_thread(types.SimpleNamespace(ctx=None), self.module._inspector.look)
            self.world.settle(0.5)
            self.assertEqual(tab.shown[None, "x"], "['early']")
            self.in_thread(thread, lambda: append("late"))
            return found

        self.state.x = []
        (tab,) = self.tabs(1)
        self.in_thread(thread, lambda: append("early"))
        self.module._fingerprint = meanwhile
        self.world.step_inspector()
        self.world.settle()
        self.assertEqual(tab.shown[None, "x"], "['early', 'late']")

    def test_L5_what_a_superseded_run_changes_in_place(self):
        self.state.x = []
        (other,) = self.tabs(1)

        def script(session):
            if session is other:
                session.show("x")
            elif self.world.current._requests.is_stopped:
                self.state.x.append("late")
            yield

        self.world.script = script
        tab = self.world.connect()
        self.world.step_runner(self.world.runners[0])
        tab.click(page="another")
        self.world.settle()
        expected = "['late']" if self.fast_reruns else "[]"
        self.assertEqual((other.shown[None, "x"], repr(self.state.to_dict()["x"])), (expected, expected))

    def test_L4_a_value_in_hand_under_another_lock_is_not_looked_at(self):
        self.state.chat = []
        one, two = self.tabs(2, reads("chat"))

        def slowly(session):
            with self.locks["ui"]:
                chat = self.state.chat
                chat.append("half")
                yield
                yield
                chat.append("done")

        one.click(slowly)
        for _ in range(3):
            self.world.step_runner(self.world.runners[0])
        with self.locks["chat"]:
            self.state.chat.append("more")
        self.world.step_inspector()
        for _ in range(5):
            self.world.pass_time(0.05)
            while self.world.loop.soon:
                self.world.step_loop()
        self.assertEqual(self.world.ours, [])
        self.world.settle()
        self.assertEqual([tab.shown[None, "chat"] for tab in (one, two)], ["['half', 'more', 'done']"] * 2)


class Reruns(Case):
    def write(self, value, key="x"):
        return lambda: self.state.__setitem__(key, value)

    def test_R1_readers_are_rerun_and_the_writer_is_not(self):
        tab, other, third = self.tabs(3)
        self.world.script = reads("x")
        self.click(tab, self.write(1))
        self.assertEqual(self.runs_of(tab, other, third), [1, 1, 1])
        self.assertEqual([t.shown[None, "x"] for t in (tab, other, third)], ["1"] * 3)

    def test_R1_every_way_to_read_binds(self):
        self.state.x = 0
        ways = {
            "[]": lambda: self.state["x"],
            "name": lambda: self.state.x,
            "get": lambda: self.state.get("x"),
            "in": lambda: "x" in self.state,
            "items": lambda: list(self.state.items()),
            "setdefault": lambda: self.state.setdefault("x", 1),
        }
        for number, (name, way) in enumerate(ways.items(), 1):
            with self.subTest(name):

                def script(session, way=way):
                    way()
                    yield

                (tab,) = self.tabs(1, script)
                self.write(number)()
                self.world.settle()
                self.assertEqual(self.runs_of(tab), [1])

    def test_R1_iteration_reads_the_set_of_keys(self):
        for read in (
            lambda: list(self.state),
            lambda: len(self.state),
            lambda: list(self.state.keys()),
        ):

            def script(session, read=read):
                read()
                yield

            (tab,) = self.tabs(1, script)
            self.state["new"] = 1
            self.world.settle()
            self.state["new"] = 2
            self.world.settle()
            self.assertEqual(self.runs_of(tab), [1])
            del self.state["new"]
            self.world.settle()
            self.assertEqual(self.runs_of(tab), [1])

    def test_R1_a_read_in_a_callback_binds_nothing(self):
        (tab,) = self.tabs(1, reads())
        self.click(tab, lambda: self.state.get("x"))
        self.runs_of(tab)
        self.write(1)()
        self.world.settle()
        self.assertEqual(self.runs_of(tab), [0])

    def test_R1_a_fragment_that_writes_refreshes_the_rest_of_its_page(self):
        def script(session):
            session.show("x")
            yield
            yield from session.fragment("f", reads("x"))

        (tab,) = self.tabs(1, script)
        self.click(tab, self.write(1), fragment="f")
        self.assertEqual((tab.runs, tab.shown[None, "x"]), ([("f",), ()], "1"))

    def test_R3_a_fragment_that_is_superseded_at_its_end_costs_no_full_run(self):
        def fragment(session):
            session.show("x")
            yield

        def script(session):
            yield from session.fragment("f", fragment)

        self.state.x = 0
        (tab,) = self.tabs(1, script)
        for number in range(3):
            self.state.x = number
            tab.click(fragment="f")
            self.run_out()  # Streamlit has not yet taken note of its end
            tab.click(fragment="f")
            self.world.settle()
        self.assertEqual((set(tab.runs), tab.shown["f", "x"]), ({("f",)}, "2"))

    def test_R3_a_fragment_that_changes_something_in_place_is_not_told_of_it(self):
        def append():
            with self.locks["log"]:
                self.state.log.append(1)

        self.state.log = []
        tab, other = self.tabs(2, lambda session: session.fragment("f", reads("log")))
        self.click(tab, append, fragment="f")
        self.assertEqual((tab.runs, other.runs), ([("f",)], [("f",)]))

    def test_R2_what_a_helper_thread_of_a_fragment_reads_is_the_fragments(self):
        def fragment(session):
            runner = self.world.current
            self.world.current = types.SimpleNamespace(ctx=runner.ctx)
            try:
                self.state.get("x")
            finally:
                self.world.current = runner
            yield

        def script(session):
            session.show("y")
            yield from session.fragment("f", fragment)

        (tab,) = self.tabs(1, script)
        self.click(tab, fragment="f")
        self.runs_of(tab)
        self.state.y = 1
        self.world.settle()
        self.assertEqual((tab.runs, tab.shown[None, "y"]), ([()], "1"))

    def test_R1_an_attached_helper_thread_is_not_the_run(self):
        tab, _ = self.tabs(2)

        def action(session):
            runner = self.world.current
            yield
            self.world.current = types.SimpleNamespace(ctx=runner.ctx)
            self.state.x = "from a helper"
            self.state.get("y")
            notes = runner.ctx._server_state.readers[None]
            self.assertIn("y", [entry.key for entry in notes])
            self.world.current = runner

        def script(session):
            session.show("x")
            yield
            if not self.state.get("done"):
                with self.module.no_rerun:
                    self.state.done = True
                yield from action(session)

        self.world.script = script
        self.click(tab)
        self.assertEqual(tab.shown[None, "x"], "'from a helper'")

    def test_R1_a_worker_of_a_parallel_fragment_is_the_run(self):
        def script(session):
            self.state.get("x")
            yield
            runner, state = (
                self.world.current,
                types.SimpleNamespace(fragment_id="f", is_parallel_worker=True),
            )
            self.world.current = types.SimpleNamespace(ctx=runner.ctx, thread_state=state)
            self.state.x = len(tab.runs)
            self.world.current = runner

        tab = self.world.connect()
        self.world.script = script
        self.world.settle()
        self.assertEqual(tab.runs, [()])

    def test_R2_only_the_latest_run_counts(self):
        def script(session):
            session.show("x" if session.page == "main" else "y")
            yield

        (tab,) = self.tabs(1, script)
        self.click(tab, page="other")
        self.runs_of(tab)
        self.write(1)()
        self.world.settle()
        self.assertEqual(self.runs_of(tab), [0])
        self.write(1, "y")()
        self.world.settle()
        self.assertEqual(self.runs_of(tab), [1])

    def test_R2_a_run_that_never_reads_is_forgotten(self):
        def script(session):
            if session.page == "main":
                session.show("x")
            yield

        tab, other = self.tabs(2, script)
        self.world.script = reads()
        self.click(tab)
        self.click(other, page="other")
        self.runs_of(tab, other)
        for value in range(3):
            self.write(value)()
            self.world.settle()
        self.assertLessEqual(self.runs_of(tab)[0], 1)
        self.assertLessEqual(self.runs_of(other)[0], 1)

    def test_R2_a_superseded_run_neither_wipes_nor_adds(self):
        def script(session):
            keys = ("y",) if session.page == "main" else ("x",)
            yield
            for key in keys:
                session.show(key)
                yield

        (tab,) = self.tabs(1, script)
        tab.click()
        old = self.world.runners[0]
        self.world.step_runner(old)
        self.world.step_runner(old)
        tab.click(page="other")
        new = self.world.runners[1]
        for _ in range(4):
            self.world.step_runner(new)
        body = tab.world.module.server_state
        self.world.current = old
        body.get("y")  # the old run has not yet come to where Streamlit stops it
        self.world.current = None
        self.world.settle()
        self.runs_of(tab)
        self.write(1, "y")()
        self.world.settle()
        self.assertEqual(self.runs_of(tab), [0])
        self.write(1)()
        self.world.settle()
        self.assertEqual(self.runs_of(tab), [1])

    def test_R2_a_superseded_run_that_begins_anew_wipes_nothing(self):
        (tab,) = self.tabs(1)
        tab.click()
        for _ in range(3):
            self.world.step_runner(self.world.runners[0])
        old = self.world.runners[0]
        tab.click()
        while len(self.world.runners) > 1:
            self.world.step_runner(self.world.runners[1])
        self.world.current = old
        old.send("SCRIPT_STARTED")  # it comes to an st.rerun() before it comes to its end
        self.world.current = None
        self.world.settle()
        self.runs_of(tab)
        self.write(1)()
        self.world.settle()
        self.assertEqual(self.runs_of(tab), [1])

    def test_R3_fragments_are_rerun_alone(self):
        def script(session):
            session.show("y")
            yield
            yield from session.fragment("f", reads("x"))
            yield from session.fragment("g", reads("y"))

        (tab,) = self.tabs(1, script)
        self.write(1)()
        self.world.settle()
        self.assertEqual(tab.runs, [("f",)])
        tab.runs.clear()
        self.write(1, "y")()
        self.world.settle()
        self.assertEqual(tab.runs, [()])

    def test_R3_a_fragment_that_is_no_more_is_forgotten(self):
        (tab,) = self.tabs(1, lambda session: session.fragment("f", reads("x")))
        tab.fragments.clear()
        asked = []
        tab.request_rerun = asked.append  # older releases would try to run it
        self.write(1)()
        self.world.settle()
        self.assertEqual(asked, [])
        self.assertEqual((tab.runs, self.module._sessions[tab].readers), ([], {}))

    def test_R4_a_fragment_that_is_no_more_and_may_still_be_shown(self):
        """As where a run that drew another page was dropped at its end (seed 27156252)."""
        (tab,) = self.tabs(1, lambda session: session.fragment("f", reads("x")))
        tab.fragments.clear()
        self.module._sessions[tab].is_patchwork = True
        self.write(1)()
        self.world.settle()
        self.assertEqual((tab.runs, tab.shown["f", "x"]), ([()], "1"))
        self.assertFalse(self.module._sessions[tab].is_patchwork)

    def test_R3_page_and_query_string_stay(self):
        (tab,) = self.tabs(1)
        self.click(tab, page="other")
        self.write(1)()
        self.world.settle()
        self.assertEqual(tab.page, "other")

    def test_R4_a_run_under_way_is_never_interrupted(self):
        def script(session):
            session.show("x")
            for _ in range(10):
                yield

        (tab,) = self.tabs(1, script)
        tab.click()
        for value in range(20):
            self.write(value)()
            if self.world.runners:
                self.world.step_runner(self.world.runners[0])
            while self.world.loop.soon:
                self.world.step_loop()
            self.world.pass_time(0.01)
        self.world.settle()
        self.assertEqual((tab.interrupted, tab.shown[None, "x"]), (0, "19"))
        self.assertLessEqual(len(tab.runs), 4)

    def test_R4_what_streamlit_drops_is_drawn_again(self):
        """A click in a fragment, between the end of a run and Streamlit's noticing it, drops what the run drew."""

        def script(session):
            session.show("x")
            yield
            yield from session.fragment("f", reads())

        (tab,) = self.tabs(1, script)
        self.write(1)()
        while not self.world.runners:
            self.world.step_loop() if self.world.loop.soon else self.world.pass_time(0.001)
        while self.world.runners:
            self.world.step_runner(self.world.runners[0])
        tab.click(fragment="f")
        self.world.settle()
        self.assertEqual(tab.shown[None, "x"], "1")
        self.assertEqual(tab.runs, [(), ("f",), ()])
        tab.click(fragment="f")
        self.world.settle()
        self.assertEqual(len(tab.runs), 4)

    def test_R4_no_rerun_when_the_run_has_read_the_new_value(self):
        def script(session):
            yield
            yield
            session.show("x")
            yield

        (tab,) = self.tabs(1, script)
        tab.click()
        self.world.step_runner(self.world.runners[0])
        self.write(1)()
        self.world.settle()
        self.assertEqual(self.runs_of(tab), [1])

    def test_R4_the_gap_at_the_end_of_a_run(self):
        """A change falls between any two steps of the end of a run."""
        for steps in range(14):
            (tab,) = self.tabs(1)
            tab.click()
            for _ in range(steps):
                if self.world.runners:
                    self.world.step_runner(self.world.runners[0])
                elif self.world.loop.soon:
                    self.world.step_loop()
            self.write(f"gap {steps}")()
            self.world.settle()
            self.assertEqual(tab.shown[None, "x"], f"'gap {steps}'")

    def test_R4_a_missed_earlier_change_is_shown(self):
        def script(session):
            session.show("x")
            yield
            if session is tab:
                self.state.x = "own"

        tab = None
        tab = self.tabs(1, script)[0]
        tab.click()
        runner = self.world.runners[0]
        self.world.step_runner(runner)
        self.world.step_runner(runner)
        self.write("other")()
        self.world.settle()
        self.assertEqual(tab.shown[None, "x"], "'own'")

    def test_R4_a_key_that_came_and_went_during_a_run(self):
        def script(session):
            session.show("x")
            yield
            session.show("x")
            yield

        (tab,) = self.tabs(1, script)
        tab.click()
        for _ in ("it starts", "it shows that there is no x"):
            self.world.step_runner(self.world.runners[0])
        self.state.x = 1
        self.world.step_runner(self.world.runners[0])
        del self.state.x
        self.world.settle()
        self.assertEqual(tab.shown[None, "x"], "None")

    def test_R5_a_write_does_no_work_for_its_readers(self):
        self.tabs(50)
        self.write(1)()
        self.assertEqual(len(self.world.loop.soon), 1)
        self.assertEqual(self.world.ours, [])

    def run_loop_until(self, seconds):
        """Let the event loop run for so long, while no script comes any further."""
        until = self.world.now + seconds
        while self.world.now < until:
            self.world.step_loop() if self.world.loop.soon else self.world.pass_time(0.001)

    def test_R5_reruns_are_started_a_few_at_a_time(self):
        self.tabs(50)
        self.write(1)()
        self.run_loop_until(0.01)
        self.assertIn(len(self.world.runners), (2, 3, 4))
        self.world.settle()
        self.assertEqual({tab.shown[None, "x"] for tab in self.world.sessions.values()}, {"1"})

    def test_R5_scripts_that_work_and_work_do_not_stop_the_others(self):
        self.tabs(10)
        self.module.time.process_time = self.module.time.monotonic  # the processor is busy all the time
        self.write(1)()
        self.run_loop_until(0.02)
        self.assertEqual(len(self.world.runners), 2)
        self.run_loop_until(1)
        self.assertEqual(len(self.world.runners), 10)

    def test_R5_scripts_that_wait_do_so_side_by_side(self):
        tabs = self.tabs(30)
        self.write(1)()
        until = self.world.now + 0.25
        while self.world.now < until:
            self.world.step_loop() if self.world.loop.soon else self.world.pass_time(0.001)
        self.assertEqual(self.runs_of(*tabs), [0] * 30)
        self.assertEqual(len(self.world.runners), 30)

    def test_R5_garbage_is_collected_once_for_all_reruns_of_a_change(self):
        option, collected = "runner.postScriptGC", []
        self.module.gc = mock.Mock(wraps=gc, collect=lambda: collected.append(self.world.options[option]))
        gone, *_ = self.tabs(5)
        self.write(1)()
        while not self.world.runners:
            self.world.step_loop() if self.world.loop.soon else self.world.pass_time(0.001)
        self.assertFalse(self.world.options[option])
        self.world.settle()
        self.assertEqual(collected, [True])
        gone.connected = False  # a tab that stays stale does not put it off for ever
        self.write(2)()
        self.world.settle(6)
        self.assertEqual(collected, [True, True])
        self.world.options[option] = False  # as the server's owner wants it
        self.write(3)()
        self.world.settle(6)
        self.assertEqual((collected, self.world.options[option]), ([True, True], False))

    def test_R5_a_disconnected_tab_is_rerun_when_it_is_back(self):
        (tab,) = self.tabs(1)
        tab.connected = False
        for value in range(5):
            self.write(value)()
            self.world.settle()
        self.assertEqual(self.runs_of(tab), [0])
        tab.connected = True
        self.world.settle()
        self.assertEqual((self.runs_of(tab), tab.shown[None, "x"]), ([1], "4"))

    def test_R5_a_disconnected_tab_delays_nobody(self):
        gone, tab = self.tabs(2)
        gone.connected = False
        for value in range(20):
            self.write(value)()
            self.world.settle(0.15)
        while self.world.loop.timers[0][0] < self.world.now + 0.1:
            self.world.settle(0.05)
        now = self.world.now
        self.write("new")()
        while not self.world.runners:
            self.world.step_loop() if self.world.loop.soon else self.world.pass_time(0.001)
        self.assertLess(self.world.now - now, 0.02)
        self.world.settle(3)
        self.assertEqual(tab.shown[None, "x"], "'new'")
        for value in range(20):
            self.write(value, "that nobody reads")()
            while self.world.loop.soon:
                self.world.step_loop()
        self.world.settle(3)
        self.assertLess(len(self.world.loop.timers), 5)  # those for the tab that is gone do not pile up

    def test_R3_a_rerun_that_streamlit_ignores_is_not_the_end(self):
        tab, other = self.tabs(2, lambda session: session.fragment("f", reads("x")))
        tab.request_rerun = lambda state: None
        with self.assertNoLogs("server_state") if hasattr(self, "assertNoLogs") else contextlib.nullcontext():
            self.write(1)()
            self.world.settle()
        self.write(2)()
        self.world.settle()
        self.assertEqual(other.shown["f", "x"], "2")

    def test_R6_a_chain_slows_down_and_warns_once(self):
        def script(session):
            self.state.x = self.state.get("x", 0) + 1
            yield

        with self.assertLogs("server_state", "WARNING") as logs:
            tabs = self.tabs(2, script)
            self.world.settle(60)
        self.assertEqual(len(logs.output), 1)
        self.assertIn('"x"', logs.output[0])
        runs = len(tabs[0].runs) + len(tabs[1].runs)
        self.assertTrue(40 < runs < 200, runs)
        before = self.state.x
        self.world.settle(10)
        self.assertTrue(5 <= self.state.x - before <= 25, self.state.x - before)  # each of two tabs, once a second

    def test_R6_a_request_that_streamlit_refuses_leaves_no_chain(self):
        (tab,) = self.tabs(1)
        with mock.patch.object(tab, "request_rerun", lambda state: None):
            self.write(1)()
            self.world.settle()
        tab.click()
        self.world.step_runner(self.world.runners[0])
        self.world.step_runner(self.world.runners[0])
        self.assertEqual(tab._scriptrunner.ctx._server_state.cause, self.module._Cause())

    def test_R6_a_request_that_fails_leaves_no_chain(self):
        (tab,) = self.tabs(1)
        fails = mock.patch.object(tab, "request_rerun", side_effect=ValueError("gone"))
        with fails, self.assertLogs("server_state", "ERROR") as logs:
            self.write(1)()
            self.world.settle()
        self.assertEqual(len(logs.output), 1)
        tab.click()
        self.world.step_runner(self.world.runners[0])
        self.world.step_runner(self.world.runners[0])
        self.assertEqual(tab._scriptrunner.ctx._server_state.cause, self.module._Cause())

    def test_R4_a_run_that_has_ended_and_of_which_we_have_not_heard(self):
        (tab,) = self.tabs(1)
        tab.click(does(self.write(1)))
        self.run_out()
        while tab._scriptrunner is not None:
            self.world.step_loop()  # Streamlit has heard of it
        session = self.module._sessions[tab]
        self.assertTrue(session.stale())
        self.module._scheduler.rerun(session)
        self.world.settle()
        self.assertEqual(self.runs_of(tab), [1])

    def test_R4_a_rerun_waits_until_what_was_drawn_is_sent(self):
        (tab,) = self.tabs(1)
        self.click(tab)
        for is_sent in (True, False):  # what a tab has missed that is back is sent only with something new
            tab.click()
            self.run_out()
            while self.world.loop.soon:
                self.world.step_loop()
            tab._browser_queue._queue.append("a delta")
            self.runs_of(tab)
            self.write(is_sent)()
            self.world.settle(0.5)
            self.assertEqual(self.runs_of(tab), [0])
            if is_sent:
                tab._browser_queue._queue.clear()
            self.world.settle(0.7)
            self.assertEqual(self.runs_of(tab), [1])

    def test_R5_only_those_who_read_what_has_changed_are_looked_at(self):
        def script(session):
            session.show("x" if session.page == "main" else "y")
            yield

        one, two = self.tabs(2, script)
        self.click(two, page="other")
        self.module._scheduler.next_sweep = float("inf")  # which looks at all
        asked, stale = [], self.module._Session.stale
        with mock.patch.object(self.module._Session, "stale", lambda session: asked.append(session) or stale(session)):
            self.write(1, "nobody's")()
            self.world.settle(0.1)
            self.assertEqual(asked, [])
            self.write(1)()
            self.world.settle(0.1)
        self.assertEqual({session.app() for session in asked}, {one})
        self.assertEqual(one.shown[None, "x"], "1")

    def test_R5_garbage_is_collected_again_when_the_last_tab_has_gone(self):
        (tab,) = self.tabs(1)
        self.write(1)()
        while not self.world.runners:
            self.world.step_loop() if self.world.loop.soon else self.world.pass_time(0.001)
        self.assertFalse(self.world.options["runner.postScriptGC"])
        self.world.runners.clear()
        self.world.sessions.clear()
        self.world.ours.clear()
        del tab
        gc.collect()
        self.world.settle(7)
        self.assertTrue(self.world.options["runner.postScriptGC"])

    def test_R6_a_user_begins_a_new_chain(self):
        def script(session):
            self.state.x = self.state.get("x", 0) + 1
            yield

        with self.assertLogs("server_state", "WARNING"):
            tab, other = self.tabs(2, script)
            self.world.settle(5)
        self.world.script = reads("x")
        self.world.settle(5)
        tab.click(does(self.write("at once")))
        self.world.settle(0.04)
        self.assertEqual(other.shown[None, "x"], "'at once'")

    def test_R4_an_end_of_which_streamlit_says_nothing(self):
        (tab,) = self.tabs(1)
        self.world.says_nothing = True
        self.write(1)()
        self.world.settle()
        self.assertEqual(self.runs_of(tab), [1])

    def test_R6_a_tab_alone_does_not_loop(self):
        def script(session):
            self.state.x = self.state.get("x", 0) + 1
            yield

        (tab,) = self.tabs(1, script)
        self.world.settle(5)
        self.assertEqual((self.runs_of(tab), self.state.x), ([0], 1))

    def test_R7_no_rerun(self):
        tab, other = self.tabs(2)

        def quietly():
            with self.module.no_rerun:
                with self.module.no_rerun:
                    self.state.x = 1
                self.state.x = 2

        self.click(tab, quietly)
        self.assertEqual(self.runs_of(tab, other), [1, 0])
        self.click(tab, self.write(3))
        self.assertEqual(self.runs_of(tab, other), [1, 1])

    def test_R7_no_rerun_and_changes_in_place(self):
        self.state.x = value = []
        for outer, inner in itertools.permutations([self.module.no_rerun, self.locks["x"]]):

            def work(outer=outer, inner=inner):
                with outer, inner:
                    self.state.x.append(1)

            self.assertFalse(self.changes(work))
            self.assertFalse(self.changes(lambda: setattr(self.state, "x", value)))

    def test_R7_a_change_outside_no_rerun_is_told_whatever_is_inside(self):
        def work():
            lock = self.locks["x"]
            lock.acquire()
            self.state.x = 1
            with self.module.no_rerun:
                lock.release()

        self.assertTrue(self.changes(work))

    def test_R7_force(self):
        tab, other = self.tabs(2)
        self.click(tab, lambda: self.module.force_rerun_bound_sessions("x"))
        self.assertEqual(self.runs_of(tab, other), [1, 1])
        with self.module.no_rerun, self.assertRaisesRegex(self.module.RerunSuppressedError, "x"):
            self.module.force_rerun_bound_sessions("x")
        self.module.force_rerun_bound_sessions("never mentioned")
        self.world.settle()
        self.assertEqual(self.runs_of(tab, other), [0, 0])
        self.assertEqual(list(self.module._entries), ["x"])

    def test_R1a_what_was_drawn_before_it_was_assigned_is_drawn_again(self):
        def slider(session):
            session.show("x")
            yield
            self.state.x = session.moved_to
            yield

        self.state.x = 50
        Session.moved_to = 50
        tab, other = self.tabs(2, slider)
        for step in range(51, 57):
            Session.moved_to = step  # of both, so that only the first one's move is a change
            self.click(tab)
            self.assertEqual((tab.shown[None, "x"], other.shown[None, "x"]), (str(step), str(step)))
        self.assertEqual(self.runs_of(tab, other), [12, 6])
        self.assertEqual(tab.interrupted, 0)

    def test_R1a_a_run_that_knows_what_it_assigns_is_not_rerun(self):
        def script(session):
            session.show("other")
            yield
            self.state.setdefault("x", 0)
            self.state.x += 1
            session.show("x")

        (tab,) = self.tabs(1, script)
        self.click(tab)
        self.assertEqual((self.runs_of(tab), tab.shown[None, "x"]), ([1], "2"))

    def test_R1a_in_a_run_that_we_started_but_not_twice(self):
        def script(session):
            session.show("x")
            yield
            self.state.x = (self.state.x or 0) + 1
            session.show("y")

        self.state.x = 0
        (tab,) = self.tabs(1, script)
        self.assertEqual(self.state.x, 2)  # the first run, and the one that draws again
        self.state.y = "from another"
        self.world.settle()
        self.assertEqual((self.runs_of(tab), self.state.x), ([2], 4))

    def test_R1a_what_is_worked_out_above_what_it_comes_from(self):
        def script(session):
            session.show("total")
            yield
            self.state.total = self.state.points * 10
            session.show("points")
            yield
            if session.pressed:
                session.pressed = False
                self.state.points += 1
            yield

        self.state.update(points=1, total=10)
        (tab,) = self.tabs(1, script)
        tab.pressed = True
        self.click(tab)
        self.assertEqual(tab.shown, {(None, "total"): "20", (None, "points"): "2"})
        self.assertEqual(self.runs_of(tab), [3])

    def add_a_point(self, session):
        """A script that works out a total above what it comes from, and changes that on every run."""
        session.show("total")
        yield
        self.state.total = self.state.points * 10
        session.show("points")
        yield
        self.state.points += 1
        yield

    def click_beside_a_timed_fragment(self, tab):
        """Click, and have the fragment f ask for a run during each run of the body; give how many those were."""
        tab.runs.clear()
        tab.click()
        ticked = 0
        while self.world.runners or self.world.loop.soon:
            if () in tab.runs[ticked:] and tab._scriptrunner and "f" in tab.fragments:
                ticked = len(tab.runs)
                tab.click(fragment="f")
            for runner in list(self.world.runners):
                self.world.step_runner(runner)
            while self.world.loop.soon:
                self.world.step_loop()
            self.world.pass_time(0.01)
        self.world.settle()
        self.assertEqual(tab.interrupted, 0)
        return tab.runs.count(())

    def test_R1a_a_fragment_that_runs_meanwhile_starts_no_second_redraw(self):
        def script(session):
            session.show("x")
            yield
            self.state.x += 1
            yield
            yield from session.fragment("f", reads("x"))

        self.state.x = 0
        (tab,) = self.tabs(1, script)
        self.assertEqual(self.click_beside_a_timed_fragment(tab), 2)

    def test_R1a_a_fragment_that_runs_meanwhile_does_not_forget_what_was_redrawn(self):
        def script(session):
            yield from self.add_a_point(session)
            yield from session.fragment("f", reads("y"))

        self.state.update(points=1, total=10)
        (tab,) = self.tabs(1, script)
        with self.module.no_rerun:
            self.state.update(points=1, total=10)
        self.assertEqual(self.click_beside_a_timed_fragment(tab), 3)

    def test_R6_a_chain_of_fragments_is_slow_at_each_link(self):
        def counts(session):
            self.state.x = self.state.get("x", 0) + 1
            session.show("x")
            yield

        def script(session):
            yield from session.fragment("f", counts)

        with self.assertLogs("server_state", "WARNING"):
            one, two = self.tabs(2, script)
        self.world.settle(5)
        self.assertLess(sum(self.runs_of(one, two)), 30)

    def test_R6_a_timed_fragment_does_not_put_a_slow_chain_off(self):
        def script(session):
            self.state.x = self.state.get("x", 0) + 1
            session.show("x")
            yield
            yield from session.fragment("f", reads("y"))

        with self.assertLogs("server_state", "WARNING"):
            tabs = self.tabs(2, script)
        for _ in range(20):
            before = self.state.x
            for tab in tabs:
                tab.click(fragment="f")
            self.world.settle(0.5)
        self.assertGreater(self.state.x, before)

    def test_R1a_each_key_once_in_a_chain_of_redraws(self):
        def in_fragment(session):
            yield from session.fragment("f", self.add_a_point)

        for one in (self.add_a_point, in_fragment):
            self.state.update(points=1, total=10)
            (tab,) = self.tabs(1, one)
            for fragment in [None, *tab.fragments]:
                with self.module.no_rerun:
                    self.state.update(points=1, total=10)
                self.click(tab, fragment=fragment)
                self.assertEqual(self.runs_of(tab), [3])  # for the points, and for the total that they change
            del self.world.sessions[tab.id]

    def test_R7_a_callback_that_forces_leaves_nothing_for_later(self):
        def script(session):
            session.show("x")
            yield
            if self.state.x == 2:
                self.state.x = 3
            yield

        self.state.x = 1
        (tab,) = self.tabs(1, script)
        self.click(tab, lambda: self.module.force_rerun_bound_sessions("x"))
        self.assertEqual(self.runs_of(tab), [1])
        self.write(2)()
        self.world.settle()
        self.assertEqual(tab.shown[None, "x"], "3")

    def test_R1a_asking_whether_a_key_is_there_shows_nothing(self):
        def script(session):
            "x" in self.state  # noqa: B015
            session.show("y")
            yield
            self.state.x = session

        (tab,) = self.tabs(1, script)
        self.click(tab)
        self.assertEqual(self.runs_of(tab), [1])

    def test_R4_a_rerun_between_fragments_knows_the_browsers_context(self):
        requests = []
        run = types.SimpleNamespace(fragments=[], session=mock.Mock(stale=lambda: {None: [self.module._Entry("x")]}))
        runner = types.SimpleNamespace(
            request_rerun=requests.append,
            _requests=types.SimpleNamespace(
                _state=types.SimpleNamespace(name="RERUN"),
                _rerun_data=types.SimpleNamespace(fragment_id_queue=["f"]),
            ),
        )
        self.tabs(1)
        with mock.patch.object(self.module._scheduler, "wait_of_chain", return_value=0):
            ctx = types.SimpleNamespace(query_string="?a=1", page_script_hash="p", context_info="timezone")
            self.module._rerun_between_fragments(run, ctx, runner)
        self.assertEqual(requests, [RerunData("?a=1", "p", None, "timezone")])

    def test_R2_fragments_that_waited_together_are_one_run(self):
        def script(session):
            yield from session.fragment("f", reads("x"))
            yield from session.fragment("g", reads("y"))

        (tab,) = self.tabs(1, script)
        self.click(tab, fragment="f g")
        self.assertEqual(tab.runs, [("f", "g")])
        tab.runs.clear()
        for key, fragment in (("x", "f"), ("y", "g")):
            self.write(1, key)()
            self.world.settle()
            self.assertEqual((tab.shown[fragment, key], tab.runs), ("1", [(fragment,)]))
            tab.runs.clear()

    def test_R1_a_thread_that_goes_on_after_its_run_binds_nothing(self):
        tab, _ = self.tabs(2)
        tab.click()
        thread = types.SimpleNamespace(ctx=tab._scriptrunner.ctx)
        self.world.settle()
        self.runs_of(tab)
        self.in_thread(thread, lambda: self.state.get("hits"))
        self.write(1, "hits")()
        self.world.settle()
        self.assertEqual(self.runs_of(tab), [0])

    def test_L4_a_thread_with_the_number_of_one_that_is_gone(self):
        self.state.x = []
        tab, other = self.tabs(2)
        tab.click()
        thread = types.SimpleNamespace(ctx=tab._scriptrunner.ctx)
        number = tab._scriptrunner.ident
        self.world.settle()

        def append():
            with self.locks["x"]:
                self.state.x.append(1)

        with mock.patch.object(self.module.threading, "get_ident", lambda: number):
            self.in_thread(thread, append)
        self.world.settle()
        self.assertEqual((tab.shown[None, "x"], other.shown[None, "x"]), ("[1]", "[1]"))

    def test_R1_two_threads_that_read_first_are_in_one_run(self):
        (tab,) = self.tabs(1)
        tab.click()
        for _ in range(3):
            self.world.step_runner(self.world.runners[0])
        ctx = tab._scriptrunner.ctx
        run = ctx._server_state
        self.assertIs(self.module._begin(ctx, None), run)

    def test_R6_a_helper_thread_goes_on_with_the_chain(self):
        def script(session):
            self.state.setdefault("x", 0)
            thread = types.SimpleNamespace(ctx=self.world.current.ctx)
            self.in_thread(thread, lambda: setattr(self.state, "x", self.state.x + 1))
            yield
            session.show("x")
            yield

        with self.assertLogs("server_state", "WARNING"):
            (tab,) = self.tabs(1, script)
        self.world.settle(5)
        self.assertLess(self.runs_of(tab)[0], 15)

    def test_R6_a_helper_thread_goes_on_with_the_chain_of_changes_in_place_too(self):
        def append():
            with self.locks["x"]:
                self.state.x.append(1)

        def script(session):
            session.show("x")
            yield
            thread = types.SimpleNamespace(ctx=self.world.current.ctx)
            self.in_thread(thread, append)
            yield

        self.state.x = []
        with self.assertLogs("server_state", "WARNING"):
            (tab,) = self.tabs(1, script)
            self.world.settle(5)
        self.assertLess(self.runs_of(tab)[0], 6)

    def test_R1_a_thread_that_first_reads_when_its_runner_has_ended(self):
        def script(session):
            session.show("x")
            yield
            yield from session.fragment("f", reads())

        self.state.x = 1
        (tab,) = self.tabs(1, script)
        tab.click(fragment="f")
        thread = types.SimpleNamespace(ctx=tab._scriptrunner.ctx)
        while self.world.runners:
            self.world.step_runner(self.world.runners[0])
        self.in_thread(thread, lambda: self.state.get("y"))  # and the event loop has not yet heard of the end
        self.world.settle()
        self.write(2)()
        self.world.settle()
        self.assertEqual(tab.shown[None, "x"], "2")

    def test_L5_a_click_that_is_joined_to_our_request_is_a_users(self):
        def script(session):
            session.show("log")
            yield
            yield from session.fragment("f", reads("x"))
            yield from session.fragment("g", reads("y"))

        self.state.log = []
        tab, other = self.tabs(2, script)
        self.write(1)()
        while not self.world.runners:
            self.world.pass_time(0.05)
            while self.world.loop.soon:
                self.world.step_loop()
        tab.click(does(lambda: self.state.log.append("clicked")), fragment="g")
        self.world.settle()
        self.assertIn(("f", "g"), tab.runs)
        self.assertEqual(other.shown[None, "log"], "['clicked']")

    def both_draw_x(self):
        """Give a tab whose body and fragment draw x, and then add one where a button of theirs was clicked."""

        def part(name):
            def draw(session):
                session.show("x")
                yield
                if session.pressed == name:
                    session.pressed = None
                    self.state.x += 1
                yield

            return draw

        def script(session):
            yield from part("body")(session)
            yield from session.fragment("f", part("f"))

        self.state.x = 0
        return self.tabs(1, script)[0]

    def press(self, tab, name, fragment=None):
        def action(session):
            session.pressed = name
            yield

        tab.click(action, fragment=fragment)

    def test_R1a_a_click_that_is_joined_to_the_redrawing_of_an_earlier_one(self):
        tab = self.both_draw_x()
        self.press(tab, "body")
        self.run_out()
        while not self.world.runners:
            self.world.pass_time(0.01)
            while self.world.loop.soon:
                self.world.step_loop()
        ((state, _),) = tab._scriptrunner._requests.queue  # ours, for the page
        self.press(tab, "f", fragment="f")
        _, (click, action) = tab._scriptrunner._requests.queue
        state.widget_states = click.widget_states
        tab._scriptrunner._requests.queue[:] = [(state, action)]  # Streamlit makes one run of both
        self.world.settle()
        self.assertEqual((self.state.x, tab.shown[None, "x"], tab.shown["f", "x"]), (2, "2", "2"))

    def test_R1a_a_click_that_waits_where_we_rerun_between_fragments(self):
        tab = self.both_draw_x()
        self.press(tab, "body")
        runner = tab._scriptrunner
        self.world.step_runner(runner)
        self.press(tab, "f", fragment="f")
        while tab.runs[-1] != ("f",):
            self.world.step_runner(runner)
            while self.world.loop.soon:
                self.world.step_loop()
        self.press(tab, "f", fragment="f")
        self.world.settle()
        self.assertEqual((self.state.x, tab.shown[None, "x"], tab.shown["f", "x"]), (3, "3", "3"))

    def test_R2_a_stop_before_the_next_run_of_a_runner_has_begun(self):
        def script(session):
            session.show("x")
            yield
            if again:
                again.pop()
                raise RerunScript
            yield

        again = []
        (tab,) = self.tabs(1, script)
        again.append(True)
        tab.click()
        runner = tab._scriptrunner
        while not getattr(getattr(runner.ctx, "_server_state", None), "is_over", False):
            self.world.step_runner(runner)
        runner._requests.is_stopped = True
        self.world.settle()
        self.write("new")()
        self.world.settle(5)
        self.assertEqual(tab.shown[None, "x"], "'new'")

    def test_S1_while_no_thread_can_be_started(self):
        tab, other = self.tabs(2)
        with mock.patch.object(tab, "request_rerun", side_effect=RuntimeError("can't start new thread")):
            self.write(1)()
            self.world.settle()
        self.assertEqual(other.shown[None, "x"], "1")
        self.world.settle()
        self.assertEqual(tab.shown[None, "x"], "1")

    def test_R6_a_run_of_ours_that_ends_before_we_can_hear_of_it(self):
        """It is of a page that reads nothing: it is not asked for again and again."""
        (tab,) = self.tabs(1)

        def at_once(state):
            requests.append(state)
            tab._scriptrunner = types.SimpleNamespace(
                _requests=types.SimpleNamespace(_state=Name("STOP")), on_event=Signal()
            )
            self.world.loop.call_soon(setattr, tab, "_scriptrunner", None)

        requests = []
        with mock.patch.object(tab, "request_rerun", at_once):
            self.write(1)()
            self.world.settle(10)
        self.assertEqual(len(requests), 1)

    def test_R4_no_rerun_between_fragments_takes_the_place_of_a_click(self):
        run = types.SimpleNamespace(fragments=[], session=mock.Mock(stale=lambda: {"g": [self.module._Entry("x")]}))
        requests = types.SimpleNamespace(
            _state=types.SimpleNamespace(name="RERUN"),
            _rerun_data=types.SimpleNamespace(fragment_id_queue=[]),  # the whole script is to be run
        )
        runner = types.SimpleNamespace(request_rerun=self.fail, _requests=requests)
        self.tabs(1)
        with mock.patch.object(self.module._scheduler, "wait_of_chain", return_value=0):
            self.module._rerun_between_fragments(run, types.SimpleNamespace(), runner)

    def test_R2_what_was_cut_short_adds_what_it_read(self):
        session = self.module._Session(mock.Mock(id="of a session"))
        a, b = (self.module._Entry(key) for key in "ab")

        def run(readers, cut_short=(), fragments=()):
            made = self.module._Run(session, types.SimpleNamespace(**vars(Context(mock.Mock()))), 1)
            made.readers, made.cut_short, made.fragments = readers, dict(cut_short), list(fragments)
            return made

        session.replace(run({"f": {a: 5}}, {"f": {a: 3}, "g": {b: 2}}, ["f"]))
        self.assertEqual(session.readers, {"f": {a: 5}, "g": {b: 2}})
        session.add(run({"f": {a: 4, b: 6}, None: {a: 7}}, {"g": {b: 1}}))
        self.assertEqual(session.readers, {"f": {a: 4, b: 6}, "g": {b: 1}, None: {a: 7}})
        session.replace(run({None: {b: 8}}, {"g": {b: 1}}))
        self.assertEqual(session.readers, {None: {b: 8}})

    def test_R2_what_was_cut_short_is_still_shown_where_its_successor_is_dropped(self):
        def script(session):
            session.show("y" if session.page == "main" else "x")
            yield
            if session.page == "other" and self.state.to_dict()["x"] == "old":
                self.state.x = "new"
                raise RerunScript
            yield
            yield from session.fragment("f", reads())

        self.state.x = "old"
        (tab,) = self.tabs(1, script)
        tab.click(page="other")
        self.run_until_shown(tab, "x")
        self.run_out()  # Streamlit has not yet taken note of what the second run drew
        tab.click(fragment="f")
        self.world.settle()
        self.assertEqual(tab.shown[None, "x"], "'new'")

    def test_R2_what_was_cut_short_is_still_shown_where_its_successor_draws_nothing_and_is_dropped(self):
        def script(session):
            session.show("y" if session.page == "main" else "x")
            yield
            yield from session.fragment("f", reads())

        def cut_short(session):
            session.show("x")
            yield
            session.script = draws_nothing
            raise RerunScript

        def draws_nothing(session):
            self.state.get("x")
            yield
            yield from session.fragment("f", reads())

        self.state.x = "old"
        (tab,) = self.tabs(1, lambda session: getattr(session, "script", script)(session))
        tab.script = cut_short
        tab.click()
        self.run_until_shown(tab, "x")
        self.run_out()
        tab.script = script
        tab.click(fragment="f")
        self.world.settle()
        tab.script = reads("x")
        self.state.x = "new"
        self.world.settle()
        self.assertEqual(tab.shown[None, "x"], "'new'")

    def test_R4_a_helper_thread_that_first_uses_the_state_while_its_run_ends(self):
        def script(session):
            session.show("x")
            yield
            yield from session.fragment("f", reads())

        self.state.x = ["old"]
        (tab,) = self.tabs(1, script)
        tab.click(fragment="f")
        runner = self.world.runners[0]
        while not runner.ctx._has_script_started:
            self.world.step_runner(runner)
        before = self.module._session

        def ends(*args):
            thread, self.world.current = self.world.current, None
            self.run_out()
            self.world.current = thread
            return before(*args)

        helper = types.SimpleNamespace(ctx=runner.ctx)
        with mock.patch.object(self.module, "_session", ends):
            self.in_thread(helper, lambda: self.state.get("z"))
        self.world.settle()
        self.state.x = ["new"]
        self.world.settle()
        self.assertEqual(tab.shown[None, "x"], "['new']")
        self.in_thread(helper, lambda: self.state.x.append("of a run that is over"))
        self.world.settle()
        self.assertEqual(tab.shown[None, "x"], repr(self.state.x))

    def test_R1a_what_a_superseded_run_had_drawn_is_no_redraw(self):
        session = self.module._Session(mock.Mock(id="of a session"))
        entry = self.module._Entry("x")
        made = self.module._Run(session, types.SimpleNamespace(**vars(Context(mock.Mock()))), 1)
        made.readers, made.outdated = {None: {entry: 1}}, {entry}
        session.add(made)
        session.plan({None: [entry]}, None)
        self.assertEqual(session.cause.redrawn, frozenset())
        session.replace(made)
        session.plan({None: [entry]}, None)
        self.assertEqual(session.cause.redrawn, {entry})

    def test_S4_an_event_from_a_thread_without_a_context_is_no_error(self):
        for name in ("SCRIPT_STARTED", "ENQUEUE_FORWARD_MSG", "SCRIPT_STOPPED_WITH_SUCCESS", "SHUTDOWN"):
            self.module._on_event(None, Name(name), client_state=None)

    def test_S1_a_script_that_reruns_itself_for_ever_leaves_nothing(self):
        (tab,) = self.tabs(1)
        runs, alive = [], []

        def script(session):
            session.show("x")
            yield
            runs.append(weakref.ref(session._scriptrunner.ctx._server_state))
            gc.collect()
            alive.append(sum(run() is not None for run in runs))
            if len(runs) < 20:
                raise RerunScript

        self.world.script = script
        tab.click()
        self.world.settle()
        self.assertEqual(len(runs), 20)
        self.assertLess(max(alive), 4)

    def test_R4_a_timed_fragment_that_is_always_under_way(self):
        def script(session):
            session.show("x")
            yield
            yield from session.fragment("f", reads())

        (tab,) = self.tabs(1, script)
        self.state.x = "new"
        for _ in range(100):
            if tab._scriptrunner is None or not tab._scriptrunner._requests.queue:
                tab.click(fragment="f")
            for runner in list(self.world.runners):
                self.world.step_runner(runner)
            while self.world.loop.soon:
                self.world.step_loop()
            self.world.pass_time(0.01)
        self.assertEqual((tab.shown[None, "x"], tab.interrupted), ("'new'", 0))

    def test_R5_a_connection_that_died_without_a_word(self):
        (tab,) = self.tabs(1)
        tab.is_dead = True
        self.write("meanwhile")()
        self.world.settle()
        self.assertEqual(tab.shown[None, "x"], "None")
        tab.reconnect()
        self.world.settle()
        self.assertEqual((self.runs_of(tab), tab.shown[None, "x"]), ([2], "'meanwhile'"))
        tab.click()
        self.world.settle()
        tab.reconnect()
        self.world.settle()
        self.assertEqual(self.runs_of(tab), [1])

    def test_R5_a_click_in_a_fragment_does_not_hide_that_the_body_was_lost(self):
        def script(session):
            session.show("x")
            yield
            yield from session.fragment("f", reads("y"))

        (tab,) = self.tabs(1, script)
        tab.die()
        self.write("meanwhile")()
        self.world.settle()
        tab.reconnect()
        tab.click(fragment="f")
        self.run_out()
        while self.world.loop.soon:
            self.world.step_loop()
        self.world.settle()
        self.assertEqual(tab.shown[None, "x"], "'meanwhile'")

    def test_R6_a_chain_of_changes_in_place_ends(self):
        heart = itertools.count()

        def script(session):
            self.state.users[session.id] = next(heart)
            session.show("users")
            yield

        self.state.users = {}
        with self.assertLogs("server_state", "WARNING") as logs:
            tabs = self.tabs(2, script)
            self.world.settle(10)
        self.assertEqual(len(logs.output), 1)
        for tab in tabs:
            tab.runs.clear()
        self.click(tabs[0])
        self.world.settle(10)
        self.assertLessEqual(sum(self.runs_of(*tabs)), 10)

    def test_R6_a_page_that_runs_again_by_itself_goes_on_in_its_chain(self):
        def script(session):
            self.state.x = self.state.get("x", 0) + 1
            yield
            if session.runs and len(session.runs) % 2:
                raise RerunScript

        with self.assertLogs("server_state", "WARNING"):
            tabs = self.tabs(2, script)
            self.world.settle(20)
        for tab in tabs:
            tab.runs.clear()
        self.world.settle(5)
        self.assertLess(sum(self.runs_of(*tabs)), 30)

    def test_C1_an_equal_list_assigned_while_it_is_to_be_looked_at(self):
        def script(session):
            self.state.x = list(self.state.x)
            session.show("x")
            yield

        self.state.x = ["red"]
        tabs = self.tabs(3, script)
        for tab in tabs:
            tab.click()
        self.world.settle()
        self.assertEqual(self.runs_of(*tabs), [1, 1, 1])

    def test_R6_a_click_on_a_session_that_waits_begins_anew(self):
        def script(session):
            self.state.x = self.state.get("x", 0) + 1
            yield

        with self.assertLogs("server_state", "WARNING"):
            tab, _ = self.tabs(2, script)
            self.world.settle(20)
        tab.click()
        self.world.step_runner(self.world.runners[-1])
        self.world.step_runner(self.world.runners[-1])
        self.assertEqual(tab._scriptrunner.ctx._server_state.cause.depth, 0)

    def test_R7_force_at_the_release_and_for_a_key_only_locked(self):
        tab, other = self.tabs(2)

        def work():
            with self.locks["x"]:
                self.module.force_rerun_bound_sessions("x")
                self.assertFalse(is_notified(self.module))

        self.click(tab, work)
        self.assertEqual(self.runs_of(tab, other), [1, 1])
        self.locks["only locked"]
        self.module.force_rerun_bound_sessions("only locked")

    def test_R7_force_reaches_its_caller_once(self):
        def script(session):
            session.show("x")
            yield
            if session is tab:
                self.module.force_rerun_bound_sessions("x")

        tab = None
        tab, _ = self.tabs(2, script)
        self.click(tab)
        self.assertEqual(self.runs_of(tab), [2])


class OlderReruns(Reruns):
    """The same with releases that note the fragment in the context."""

    older = True
    test_R1_a_worker_of_a_parallel_fragment_is_the_run = None


class SlowReruns(Reruns):
    """The same with `runner.fastReruns` off."""

    fast_reruns = False
    test_R2_a_superseded_run_neither_wipes_nor_adds = None
    test_R2_a_superseded_run_that_begins_anew_wipes_nothing = None


@dataclasses.dataclass
class Point:
    x: object
    y: object = 0


class Slots:
    __slots__ = ("a",)

    def __init__(self, a):
        self.a = a


class Service:
    """Something that notes its uses in itself."""

    calls = 0

    def call(self):
        self.calls += 1


class Color(enum.Enum):
    RED = 1
    BLUE = 2


class Changes(Case):
    def same(self, one, two):
        return fingerprint(self.module, one) == fingerprint(self.module, two)

    def test_C1_equal_values_rerun_nobody(self):
        for make in (
            lambda: 1,
            lambda: "a" * 50,
            lambda: [1, {"a": (2.5, None)}],
            lambda: float("nan"),
            lambda: None,
        ):
            self.state.x = make()
            self.assertFalse(self.changes(lambda make=make: setattr(self.state, "x", make())))
        self.assertTrue(self.changes(lambda: delattr(self.state, "x")))
        self.assertTrue(self.changes(lambda: setattr(self.state, "x", None)))

    def test_C1_types_count(self):
        values = [
            1,
            1.0,
            True,
            "1",
            b"1",
            [1],
            (1,),
            [1.0],
            [True],
            {1},
            frozenset({1}),
            {1: 1},
            {1: 1.0},
            None,
            "",
            [],
            [None],
        ]
        for one, two in itertools.combinations(values, 2):
            self.assertFalse(self.same(one, two), (one, two))

    def test_C2_compared_with_what_it_was(self):
        self.state.x = value = [1]
        (tab,) = self.tabs(1)
        for expected in (1, 0):
            value += [2] * expected
            self.state.x = value
            self.world.settle()
            self.assertEqual(self.runs_of(tab), [expected])
        value.append(3)
        with self.module.no_rerun:
            self.state.x = value
        self.assertFalse(self.changes(lambda: setattr(self.state, "x", value)))

    def test_C3_content(self):
        def values():
            yield from (
                [],
                [[]],
                {"a": [1]},
                Point(1),
                Point(2),
                Point([1]),
                Slots(1),
                Slots(2),
                Color.RED,
                Color.BLUE,
            )
            yield from (
                collections.deque([1]),
                collections.OrderedDict(a=1),
                collections.defaultdict(list, a=[1]),
            )
            yield from (
                {"b", "a", "c"},
                {"a", "b"},
                {("a", 1), ("b", 2)},
                [{1, 2}],
                frozenset("ab"),
                types.SimpleNamespace(a=1),
            )
            yield from (
                bytearray(b"a"),
                range(3),
                10**30,
                complex(1, 2),
                ValueError("a"),
                [Point(1), Point(1)],
            )
            import datetime
            import decimal
            import uuid

            yield from (
                datetime.date(2024, 1, 1),
                datetime.timedelta(1),
                decimal.Decimal("1.5"),
                uuid.UUID(int=5),
            )

        for i, one in enumerate(values()):
            for j, two in enumerate(values()):
                self.assertEqual(self.same(one, two), i == j, (one, two))

    def test_C5_a_dict_of_an_own_class_that_holds_itself(self):
        class Room(dict):
            pass

        def room(text):
            made = Room(text=text)
            made["self"] = made.again = made
            return made

        self.assertTrue(self.same(room("a"), room("a")))
        self.assertFalse(self.same(room("a"), room("b")))

    def test_C3_a_slot_that_is_not_set(self):
        class Pair:
            __slots__ = ("a", "b")

        def pair(**values):
            made = Pair()
            for name, value in values.items():
                setattr(made, name, value)
            return made

        self.assertTrue(self.same(pair(a=1), pair(a=1)))
        for other in (pair(a=2), pair(b=1), pair(), pair(a=1, b=None)):
            self.assertFalse(self.same(pair(a=1), other))

    def test_C3_a_dict_with_attributes(self):
        class Room(dict):
            __getattr__ = dict.__getitem__

        self.assertTrue(self.same(Room(a=[1]), Room(a=[1])))
        self.assertFalse(self.same(Room(a=[1]), Room(a=[2])))

    def test_C3_results_of_the_standard_library(self):
        self.assertTrue(self.same(os.stat("/"), os.stat("/")))
        self.assertTrue(self.same(time.gmtime(0), time.gmtime(0)))
        self.assertFalse(self.same(time.gmtime(0), time.gmtime(1)))

    def test_C5_shared_parts(self):
        def rooms(last):
            board = [f"field {i}" for i in range(100_000)]
            return [Point(board, i) for i in range(60)], last

        self.assertTrue(self.same(rooms(1), rooms(1)))
        self.assertFalse(self.same(rooms(1), rooms(2)))

    def test_C3_buffers_of_other_sizes(self):
        class Buffers:
            def __init__(self, *parts):
                self.parts = parts

            def __reduce_ex__(self, protocol):
                return tuple, ([pickle.PickleBuffer(part) for part in self.parts],)

        self.assertTrue(self.same(Buffers(b"ab", b"c"), Buffers(b"ab", b"c")))
        self.assertFalse(self.same(Buffers(b"ab", b"c"), Buffers(b"a", b"bc")))

    def test_C3_sets(self):
        for make in (
            set,
            lambda names: {"online": set(names), "f": 0.5},
            lambda names: [frozenset(names)],
        ):
            names = [f"user {i}" for i in range(100)]
            self.assertTrue(self.same(make(names), make(names)))
            self.assertFalse(self.same(make(names), make(names[1:])))

    def test_C3_how_often_an_object_stands_in_a_value_does_not_count(self):
        part = [1]
        self.assertTrue(self.same([part, part], [[1], [1]]))
        text = "".join(["a", "b"])
        self.assertTrue(self.same(["ab", "ab"], [text, "ab"]))

    def test_C3_classes_that_a_script_defines_anew_in_each_run(self):
        def script():
            namespace = {"__name__": "__main__"}
            exec("class Move:\n    def __init__(self, to): self.to = to", namespace)
            return namespace["Move"]("e4")

        self.assertTrue(self.same(script(), script()))

    def test_C3_arrays_and_tables(self):
        try:
            import numpy as np
            import pandas as pd
        except ImportError:
            return  # the end-to-end tests run this one where they are installed
        array = np.zeros((1000, 100))
        self.assertTrue(self.same(array, array.copy()))
        for other in (
            array.T,
            array.astype("float32"),
            array.astype("int64"),
            array.reshape(100, 1000),
        ):
            self.assertFalse(self.same(array, other), other.dtype)
        frame = pd.DataFrame({"a": range(100_000), "b": [f"text {i}" for i in range(100_000)]})
        other = frame.copy()
        self.assertTrue(self.same(frame, other))
        other.loc[70_000, "b"] = "changed"
        self.assertFalse(self.same(frame, other))
        for index in (  # pandas notes in an object what it works out when it is read from
            pd.date_range("2024-01-01", periods=2, tz="Europe/Berlin"),
            pd.period_range("2024-01", periods=2, freq="M"),
            pd.MultiIndex.from_product([pd.date_range("2024-01-01", periods=2), ["x"]]),
        ):
            read, other = (pd.DataFrame({"a": [1, 2]}, index[:]) for _ in range(2))
            before = fingerprint(self.module, {"of today": [read]})
            read.loc[read.index[1]], str(read), read.index.is_unique, getattr(read.index, "month", None)
            for same in (read, other):
                self.assertEqual(before, fingerprint(self.module, {"of today": [same]}), index)
        self.assertTrue(self.same(np.asfortranarray(array), array))

    def check_data(self, make, use=None, change=None):
        """An equal one made anew is no change, a use is none, and a change in place is seen."""
        for wrap in (lambda value: value, lambda value: {"a": [value]}):
            one, two = make(), make()
            before = fingerprint(self.module, wrap(one))
            with self.subTest(one):
                self.assertEqual(before, fingerprint(self.module, wrap(two)), "made anew")
                if use is not None:
                    use(one)
                    self.assertEqual(before, fingerprint(self.module, wrap(one)), "used")
                if change is not None:
                    change(one)
                    self.assertNotEqual(before, fingerprint(self.module, wrap(one)), "changed in place")

    def check_service(self, make, use=None):
        for wrap in (lambda value: value, lambda value: {"a": [value]}):
            one, two = make(), make()
            before = fingerprint(self.module, wrap(one))
            with self.subTest(one):
                self.assertNotEqual(before, fingerprint(self.module, wrap(two)), "another one")
                if use is not None:
                    use(one)
                self.assertEqual(before, fingerprint(self.module, wrap(one)), "used")

    def make_socket(self):
        made = socket.socket()
        self.addCleanup(made.close)
        return made

    def test_C3_kinds_of_the_standard_library_and_of_the_app(self):
        class Circle:
            def __init__(self):
                self.radius = 2

            @functools.cached_property
            def area(self):
                return self.radius**2

        class Stack:
            __slots__ = ("items",)

            def __init__(self):
                self.items = [1]

            def __reduce__(self):
                return tuple, (), {"items": self.items}

        def both(one, a=0):
            return one, a

        def write(file):
            file.seek(0)
            file.write(type(file.getvalue())(b"x" if isinstance(file, io.BytesIO) else "x"))

        self.check_data(Circle, lambda circle: circle.area, lambda circle: setattr(circle, "radius", 3))
        self.check_data(Stack, None, lambda stack: stack.items.append(2))
        self.check_data(lambda: functools.partial(both, 1, a=[]), None, lambda partial: partial.keywords["a"].append(1))
        self.assertFalse(self.same(functools.partial(both, 1), functools.partial(lambda one: one, 1)))
        self.check_data(lambda: io.BytesIO(b"abc"), lambda file: file.read(), write)
        self.check_data(lambda: io.StringIO("abc"), lambda file: file.read(), write)
        self.check_data(lambda: random.Random(1), None, lambda generator: generator.random())
        self.check_service(threading.Event, lambda event: event.set())
        self.check_service(lambda: queue.Queue(), lambda tasks: tasks.put(1))
        self.check_service(lambda: sqlite3.connect(":memory:"), lambda connection: connection.close())
        self.check_service(self.make_socket, lambda connection: connection.close())
        self.check_service(lambda: logging.Logger("a"), lambda logger: logger.setLevel(10))

    def test_C3_kinds_of_installed_packages(self):
        try:
            import matplotlib.figure
            import networkx
            import plotly.graph_objects
            import shapely
            import sklearn.linear_model
            import sqlalchemy
            from PIL import Image
        except ImportError:
            return  # the end-to-end tests run this one where they are installed
        graphs = plotly.graph_objects
        self.check_data(
            lambda: Image.new("RGB", (9, 9)),
            lambda image: image.resize((4, 4)),
            lambda image: image.putpixel((1, 1), (9, 9, 9)),
        )
        self.check_data(
            lambda: graphs.Figure(graphs.Bar(y=[1, 2])),
            lambda figure: figure.to_json(),
            lambda figure: figure.add_trace(graphs.Bar(y=[1])),
        )
        self.check_data(
            lambda: networkx.path_graph(4),
            lambda graph: (graph.adj, graph.degree, networkx.shortest_path(graph, 0, 3)),
            lambda graph: graph.add_edge(0, 3),
        )
        self.check_data(lambda: shapely.Polygon([(0, 0), (1, 0), (1, 1)]), lambda shape: shape.area)
        self.assertFalse(self.same(shapely.Point(0, 0), shapely.Point(0, 1)))
        self.check_service(
            lambda: sklearn.linear_model.LinearRegression().fit([[1], [2]], [1, 2]),
            lambda model: model.fit([[1], [2]], [1, 3]),
        )
        self.check_service(lambda: sqlalchemy.create_engine("sqlite://"), lambda engine: engine.connect().close())
        self.check_service(matplotlib.figure.Figure, lambda figure: figure.add_subplot())

    def test_C5_objects_in_a_long_chain_or_a_grid(self):
        """However deep they are linked, a change in the last one is seen."""

        class Cell:
            def __init__(self):
                self.near, self.text = [], ""

        cells = [Cell() for _ in range(2000)]
        for one, two in itertools.pairwise(cells):
            one.near.append(two)
            two.near.append(one)
        before = fingerprint(self.module, cells[0])
        self.assertEqual(before, fingerprint(self.module, cells[0]))
        cells[-1].text = "x"
        self.assertNotEqual(before, fingerprint(self.module, cells[0]))

    def test_C4_everything_else_by_identity(self):
        class Bad:
            def __getstate__(self):
                raise ValueError

        class Reduced:
            def __reduce__(self):
                raise AssertionError("was taken apart")

        def make():
            yield from (
                lambda: 0,
                threading.Lock(),
                (i for i in ()),
                threading.Thread(),
                Bad(),
                Reduced(),
                open(os.devnull),  # noqa: SIM115 - closed below
            )
            yield from (memoryview(b""), sys.stdout, random.random, contextlib.nullcontext)

        for one, two in zip(make(), make(), strict=True):
            with self.subTest(one):
                self.assertTrue(self.same(one, one))
                self.assertTrue(self.same([one], [one]))
                if one is not two:
                    self.assertFalse(self.same(one, two))
                    self.assertFalse(self.same([one], [two]))
            for value in (one, two):
                if hasattr(value, "close") and value is not sys.stdout:
                    value.close()

    def test_T1_names_of_the_apps_own_classes(self):
        held = []

        class Key(str):
            def __hash__(self):
                held.append(self_.module._master._lock._is_owned())
                return str.__hash__(self)

        self_, key = self, Key("x")
        setattr(self.state, key, 1)
        self.assertEqual(getattr(self.state, key), 1)
        self.assertIs(type(next(iter(self.state))), str)
        delattr(self.state, key)
        self.state[key] = 2
        with self.locks[key]:
            self.assertEqual((key in self.state, self.state.pop(key)), (True, 2))
        self.assertNotIn(True, held)

    def test_C4_objects_of_classes_that_cannot_be_hashed(self):
        held = []

        class Meta(type):
            def __eq__(cls, other):
                held.append(self.module._master._lock._is_owned())
                return cls is other

            __hash__ = None

        class Odd(metaclass=Meta):
            pass

        self.state.x = Odd()
        self.assertIs(self.state.x, self.state["x"])
        self.state.x = [Odd(), []]
        self.assertTrue(
            self.changes(lambda: self.locks["x"].acquire() and (self.state.x[1].append(1), self.locks["x"].release()))
        )
        self.assertNotIn(True, held)

    def test_C4_objects_that_use_the_state_while_they_are_looked_at(self):
        state, locks = self.state, self.locks

        class Curious:
            def __getstate__(self):
                with locks["y"]:
                    return state.get("y"), state.get("z"), self.__dict__.get("n")

        state.x = Curious()

        def change():
            with locks["x"]:
                state.x.n = 1

        self.assertTrue(self.changes(change))
        self.assertTrue(is_idle(self.module))

    def test_C4_what_panics_while_it_is_looked_at(self):
        class Panic(BaseException):
            pass

        class Frame:
            def __getstate__(self):
                raise Panic

        self.state.x = [Frame()]
        self.assertTrue(self.changes(lambda: setattr(self.state, "x", [Frame()])))
        with self.locks["x"]:
            self.state.get("x")
        self.world.settle()

    def test_C2_a_look_at_what_was_replaced_meanwhile_does_not_count(self):
        look, new = self.module._fingerprint, [3]

        def meanwhile(value):
            self.module._fingerprint = look
            found = look(value)
            self.state.x = new
            return found

        self.state.x = [1]
        with self.locks["x"]:
            self.state.x.append(2)
        self.module._fingerprint = meanwhile
        self.world.settle()
        self.assertEqual(self.module._present["x"].fingerprint.content, look(new).content)
        self.assertFalse(self.changes(lambda: setattr(self.state, "x", [3])))

    def test_C4_opaque_parts_do_not_hide_the_rest(self):
        value = Point([threading.Lock(), lambda: 0], y=[1])
        before = fingerprint(self.module, value)
        self.assertEqual(before, fingerprint(self.module, value))
        value.y.append(2)
        self.assertNotEqual(before, fingerprint(self.module, value))

    def test_C5_past_the_limit_by_identity(self):
        big = bytearray(self.module._FINGERPRINT_LIMIT + 1)
        value = [big]
        before = fingerprint(self.module, value)
        big[0] = 1
        self.assertEqual(before, fingerprint(self.module, value))
        self.assertFalse(self.same([big], [big]))
        self.assertTrue(self.same([bytes(1000)], [bytes(1000)]))

    def test_C5_cycles_and_depth(self):
        def cycle(end):
            value = [end]
            value.append({"self": value})
            return value

        def deep(end, depth=250):
            value = [end]
            for _ in range(depth):
                value = [value]
            return value

        for make in (cycle, deep):
            self.assertTrue(self.same(make(1), make(1)))
            self.assertFalse(self.same(make(1), make(2)))
        value = deep(1, 100_000)
        self.assertTrue(self.same(value, value))
        self.assertFalse(self.same(value, deep(2, 100_000)))

    def test_C5_objects_that_know_each_other(self):
        game = Point([Point(1), Point(2)])
        for player in game.x:
            player.game = game
        before = fingerprint(self.module, game)
        self.assertEqual(before, fingerprint(self.module, game))
        game.x[1].y = 3
        self.assertNotEqual(before, fingerprint(self.module, game))

    def test_C5_objects_that_know_each_other_by_sets(self):
        class User:
            pass

        users = [User() for _ in range(50)]
        for user in users:
            user.friends = set(users)
        before = fingerprint(self.module, users)
        self.assertEqual(before, fingerprint(self.module, users))
        users[7].name = "Ada"
        self.assertNotEqual(before, fingerprint(self.module, users))


class Life(Case):
    def test_S1_nothing_stays_of_a_dead_session(self):
        self.state.x = []
        tabs = self.tabs(3)
        self.state.x = 2
        self.world.settle()
        refs = [weakref.ref(tab) for tab in tabs]
        bound = [weakref.ref(self.module._sessions[tab]) for tab in tabs]
        del tabs
        self.world.sessions.clear()
        self.world.ours.clear()
        gc.collect()  # Streamlit's sessions are in cycles,
        gc.collect()  # and then what was bound to them
        self.assertEqual([ref() for ref in refs + bound], [None] * 6)
        self.assertEqual(len(self.module._sessions), 0)

    def test_S1_a_key_that_was_never_set_leaves_nothing(self):
        self.tabs(1, reads("never"))
        self.world.sessions.clear()
        gc.collect()
        self.state.there = 1
        del self.state.there
        self.world.settle()
        gc.collect()
        self.assertEqual((self.module._present, dict(self.module._entries)), ({}, {}))

    def test_S2_one_state_whatever_it_is_imported_as(self):
        again = load_again("elsewhere.server_state")
        for name in again.__all__:
            self.assertIs(getattr(again, name), getattr(self.module, name), name)
        again.server_state.x = 1
        self.assertEqual(self.state.x, 1)

    def test_S2_reloaded_and_in_a_newer_copy(self):
        again = load_again()
        exec(CODE, vars(again))
        self.assertIs(again.server_state, self.state)
        newer = CODE_TEXT.replace('"no_rerun", "server_state"', '"no_rerun", "a_new_name", "server_state"')
        module = load_again(code=compile(newer + "\na_new_name = 1\n", str(FILE), "exec"))
        self.assertEqual((module.a_new_name, module.server_state), (1, self.state))

    def test_S2_a_first_copy_makes_the_one_that_stays(self):
        del sys.modules["_server_state_1"]
        first, second = load_again(), load_again()
        self.assertIs(first.server_state, second.server_state)
        self.assertIsNone(getattr(sys.modules["_server_state_1"], "__file__", None))

    def test_S3_while_another_thread_imports_streamlit(self):
        name = "streamlit.runtime.scriptrunner"
        with mock.patch.dict(sys.modules, {name: types.ModuleType(name)}):
            self.state.x = 1
        self.assertFalse(self.module._off)

    def test_S4_an_error_of_one_session_turns_nothing_off(self):
        tab, other = self.tabs(2)
        sessions = self.world.modules["streamlit.runtime"].Runtime._session_mgr
        with (
            mock.patch.object(sessions, "get_session_info", side_effect=KeyError("gone")),
            self.assertLogs("server_state", "ERROR"),
        ):
            self.click(tab)
        self.state.x = 1
        self.world.settle()
        self.assertEqual(other.shown[None, "x"], "1")

    def test_S3_no_streamlit_is_needed_nor_imported(self):
        code = (
            "import sys, server_state as s; s.server_state.a = 1; print(s.server_state.a, 'streamlit' in sys.modules)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=FILE.parent,
            capture_output=True,
            text=True,
            timeout=30,
        )
        self.assertEqual((done.stdout.strip(), done.stderr), ("1 False", ""))

    def test_S3_a_spawned_process_has_its_own(self):
        spec = importlib.util.spec_from_file_location("server_state", FILE)
        self.assertIsNotNone(spec)
        context = multiprocessing.get_context("spawn")
        self.state.x = 1
        with context.Pool(1) as pool:
            self.assertEqual(pool.apply(spawned), {})

    def test_S3_a_thread_reruns_readers(self):
        self.assertTrue(self.changes(lambda: setattr(self.state, "x", "from a thread")))

    def test_S3_under_a_mocked_runtime_nothing_is_bound(self):
        runtime = self.world.modules["streamlit.runtime"].Runtime
        with (
            mock.patch.object(runtime, "instance", lambda: mock.MagicMock(spec=runtime)),
            self.assertNoLogs("server_state") if hasattr(self, "assertNoLogs") else contextlib.nullcontext(),
        ):
            self.tabs(1, reads("x"))
        self.assertEqual(len(self.module._sessions), 0)

    def test_S4_where_streamlit_lacks_something(self):
        del self.world.modules["streamlit.runtime"].Runtime._session_mgr
        with self.assertLogs("server_state", "WARNING") as logs:
            tabs = self.tabs(2)
            self.click(tabs[0], lambda: self.state.update(x=[1]))
            with self.locks["x"]:
                self.state.x.append(2)
        self.assertEqual(len(logs.output), 1)
        self.assertIn("_session_mgr", logs.output[0])
        self.assertEqual(self.state.x, [1, 2])

    def test_S4_then_nothing_is_looked_at_for_nobody(self):
        del self.world.modules["streamlit.runtime"].Runtime._session_mgr
        self.state.x = []
        with self.assertLogs("server_state", "WARNING"):
            (tab,) = self.tabs(1, reads("x"))
        self.world.settle()
        self.click(tab, lambda: self.state.x)
        self.assertEqual(self.module._inspector.suspected, {})

    def test_S4_a_lock_that_a_run_leaves_is_released(self):
        del self.world.modules["streamlit.runtime"].Runtime._session_mgr

        def leaves(session):
            self.locks["left"].acquire(blocking=False)
            self.state.get("x")
            yield
            raise StopScript

        with self.assertLogs("server_state", "WARNING"):
            (tab,) = self.tabs(1)
        tab.click(leaves)
        self.world.settle()
        self.assertTrue(self.locks["left"].acquire(blocking=False))


class Log(Case):
    """Why was I rerun? The logger says it at DEBUG."""

    def lines(self, function):
        with self.assertLogs("server_state", "DEBUG") as logs:
            function()
            self.world.settle()
        return [line.rpartition("server_state:")[2] for line in logs.output]

    def test_who_is_rerun_for_which_keys_and_who_changed_them_how(self):
        def script(session):
            session.show("log")
            yield
            yield from session.fragment("f", reads("x"))

        self.state.log = []
        tab, other = self.tabs(2, script)
        name, another = (f"session {session.id}"[:16] for session in (tab, other))
        self.assertEqual(
            self.lines(lambda: setattr(self.state, "x", 1)),
            [f'{one} is rerun, fragment f: server_state["x"] assigned by a thread' for one in (name, another)],
        )

        def append():
            with self.locks["log"]:
                self.state.log.append(1)

        expected = f'{another} is rerun, its page: server_state["log"] changed in place by {name}'
        self.assertEqual(self.lines(lambda: tab.click(does(append))), [expected])
        forced = self.lines(lambda: self.module.force_rerun_bound_sessions("log"))
        self.assertIn('server_state["log"] forced by a thread', forced[0])
        other.die()
        other.reconnect()
        self.assertIn(f"{another} is rerun, its page: what a dead connection lost", self.lines(lambda: None))

    def test_each_of_two_warnings_is_given_for_a_key(self):
        entry = self.module._entry("x")
        with self.assertLogs("server_state", "WARNING") as logs:
            for what in ("slowed down", "not told any more", "slowed down"):
                self.module._warn_of_chain(entry, what)
        self.assertEqual(len(logs.output), 2)


def spawned():
    return load().server_state.to_dict()


class Threads(Case):
    def test_T1_no_code_of_the_apps_runs_under_the_master_lock(self):
        module, held = self.module, []

        class Value:
            def note(self, *args):
                held.append(module._master._lock._is_owned())
                return "Value"

            __del__ = __repr__ = note

            def __eq__(self, other):
                self.note()
                return False

            __hash__ = None

            def __getstate__(self):
                self.note()
                return {"n": random.random()}

        self.state.x = Value()
        self.state.x = [Value(), {"a": Value()}]
        with self.locks["x"]:
            self.state.x.append(Value())
        repr(self.state)
        self.state.update({f"in place {i}": [Value()] for i in range(5)})
        with self.locks["x"]:
            for i in range(5):
                self.state[f"in place {i}"].clear()
        self.state.update(y=Value(), z=Value())
        self.state.update(y=[Value()], z=Value())
        self.state.pop("y")
        del self.state["z"]
        self.state.clear()
        gc.collect()
        self.assertGreater(len(held), 10)
        self.assertNotIn(True, held)

    def test_T1_the_collector_does_not_run_under_the_master_lock(self):
        module, held = self.module, []

        class Knot:
            def __init__(self):
                self.me = self

            def __del__(self):
                held.append(module._master._lock._is_owned())

        def versions():  # garbage is made, and more memory is asked for, while the lock is held
            for number in itertools.count(1):
                Knot()
                yield number

        module.gc, module._versions = gc, versions()
        before = gc.get_threshold()
        gc.set_threshold(1)
        try:
            for number in range(20):
                self.state.update(dict.fromkeys("abcdef", number))
        finally:
            gc.set_threshold(*before)
        self.assertGreater(len(held), 20)
        self.assertNotIn(True, held)
        gc.disable()
        try:
            self.state.x = 1
            self.assertFalse(gc.isenabled(), "as the app wants it")
        finally:
            gc.enable()

    def test_T1_nothing_of_streamlits_is_called_under_the_master_lock(self):
        scriptrunner = self.world.modules["streamlit.runtime.scriptrunner"]
        get, held = scriptrunner.get_script_run_ctx, []

        def noted(suppress_warning=False):
            held.append(self.module._master._lock._is_owned())
            return get(suppress_warning=suppress_warning)

        def script(session):
            session.show("x")
            self.state.to_dict(), list(self.state.items()), len(self.state)
            with self.module.no_rerun:
                self.state.get("x")
            yield

        self.state.update(x=[], y=1)
        with mock.patch.object(scriptrunner, "get_script_run_ctx", noted):
            (tab,) = self.tabs(1, script)
            self.click(tab, lambda: self.state.update(x=1, z=2))
        self.assertGreater(len(held), 10)
        self.assertNotIn(True, held)

    def test_T2_a_session_collected_while_bindings_are_walked(self):
        self.tabs(20)
        values = self.module._sessions.values()
        walk = iter(values)
        next(walk)
        self.world.sessions.clear()
        gc.collect()
        list(walk)
        self.state.x = 1
        self.world.settle()
        del walk
        gc.collect()
        self.state.x = 2
        self.assertEqual(len(self.module._sessions), 0)

    def test_T3_sessions_are_spoken_to_on_their_loop_only(self):
        tab, other = self.tabs(2)
        calls = []
        request = type(other).request_rerun
        other.request_rerun = lambda state: (
            calls.append(self.world.by_loop),
            request(other, state),
        )
        self.click(tab, lambda: setattr(self.state, "x", 1))
        self.state.x = 2
        self.world.settle()
        self.assertEqual(calls, [True, True])


# --- Simulation: many short random schedules, each from a seed ---


class Simulation:
    """Sessions that do all sorts of things, interleaved step by step, and what must be true when all is quiet."""

    KEYS = ("a", "b", "log", "n", "keys")  # the last one is how many there are

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.world = World(self.script, self.random.random() < 0.7, older=self.random.random() < 0.3)
        self.world.before_rerun = self.before_rerun
        self.module = self.world.module
        self.state, self.serial, self.added = self.module.server_state, itertools.count(), 0
        self.state.q = 0  # set in `no_rerun`, which would hide that there is one key more
        self.wrong = []  # what was seen on the way
        self.forced = set()  # keys whose readers were rerun although nothing had changed
        self.read_more = set()  # serial numbers of the runs that read what they do not show (R1: that is bound, too)
        self.has_left = False  # whether a thread went on with a lock that an unknown run had left
        self.in_place = self.random.random() < 0.3  # without a lock: then a rerun may come one run too late
        self.plans = {page: self.random.sample(self.KEYS, self.random.randrange(1, 4)) for page in "pq"}

    def script(self, session):
        yield
        for number, key in enumerate(self.plans[session.page]):
            if number == 1 or (number == 2 and session.page == "q"):
                yield from session.fragment(" fg"[number], lambda session, key=key: self.place(session, key))
            else:
                yield from self.place(session, key)
            action, session.pressed = session.pressed, None
            if action is not None:
                self.read_more.add(self.world.current.serial)
                yield from action(session)

    def place(self, session, key):
        session.show(key, self.latest(key))
        yield

    def latest(self, key):
        return str(len(self.state)) if key == "keys" else repr(self.state.get(key))

    def before_rerun(self, session, fragment):
        if session._scriptrunner is not None:
            self.wrong.append(f"R4: a rerun interrupts a run of {session.id}")
        if not session.connected:
            self.wrong.append(f"R5: {session.id} is disconnected and rerun")
        shown = [(place, text) for place, text in session.shown.items() if place[0] == fragment]
        is_current = all(text == self.latest(key) for (_, key), text in shown)
        # What came and went has changed, though it looks the same; so has what was read half-done (-1, L3);
        # an append may be found after it was shown (L6).
        may_look_current = any(
            text in ("None", "-1") or key in ("log", "keys", *self.forced) for (_, key), text in shown
        )
        # L3: the next run of a thread that still holds a lock tells of its changes at its end.
        may_look_current |= self.has_left
        # R5: a tab that has come back is rerun once if we drew it, since nobody knows when its connection died;
        # nor that what was sent to it does not arrive.
        if session.has_come_back:
            session.has_come_back = may_look_current = True
        may_look_current |= session.is_dead
        may_look_current |= any(session.drawn_by[place] in self.read_more for place, _ in shown)
        # Nothing shown: a run that ended before it touched the state, which R2 allows us to overlook, once.
        # R2: what a superseded run has left on the page is bound with the older version, until the next full run.
        may_look_current |= session.is_patchwork
        if shown and is_current and not may_look_current and not self.in_place:
            self.wrong.append(f"R4: {session.id} is rerun in {fragment} although all that it shows is current")

    def action(self, in_place="log pair nest"):
        state, key, value = self.state, self.random.choice("ab"), next(self.serial)
        kinds = f"write locked add delete stop peek equal quiet force leave both again {in_place}".split()
        kind, module = self.random.choice(kinds), self.module

        def act(session):
            yield
            if kind == "peek":  # reads under a lock that is another key's
                lock = module.server_state_lock["ui", "b"] if value % 2 else module.server_state_lock["ui"]
                if lock.acquire(blocking=False):
                    state.get("log"), state.get("rooms")
                    yield
                    yield
                    lock.release()
            elif kind == "equal":
                state.setdefault("rooms", {})[key] = Point(key)
                yield
                state["rooms"] = {name: Point(name) for name in state["rooms"]}
            elif kind == "quiet":
                with module.no_rerun:
                    len(state.get("log", ()))
                    state["q"] = value
            elif kind == "force":
                state.setdefault(key, value)
                module.force_rerun_bound_sessions(key)
                self.forced.add(key)
            elif kind == "leave":
                module.server_state_lock["left"].acquire(blocking=False)
                if value % 2:
                    state.get("q")  # so that the run is known, and its end closes the transaction
                else:
                    self.has_left = True
                yield
                raise StopScript
            elif kind == "both":
                lock = module.server_state_lock[key, "q"]
                if lock.acquire(blocking=False):
                    state[key] = -1
                    yield
                    if value % 2:
                        module.server_state_lock["q"].release()
                        yield
                        lock = module.server_state_lock[key]
                    state.update({key: value})
                    lock.release()
            elif kind == "write":
                state[key] = value
            elif kind == "again":
                state[key] = value
                yield
                raise RerunScript
            elif kind == "delete":
                state.pop(key, None)
            elif kind == "log" and self.in_place:
                state.setdefault("log", []).append(value)
            elif kind != "log":
                outer = self.module.server_state_lock["ui"]
                is_nested = kind == "nest" and outer.acquire(blocking=False)
                lock = self.module.server_state_lock["n", "log"]
                while not lock.acquire(blocking=False):
                    yield
                try:
                    old = state.get("n", 0)
                    yield
                    if kind == "stop":
                        raise StopScript
                    if kind in ("pair", "nest"):
                        state.setdefault("log", []).append(value)
                    state["n"] = old + 1
                    self.added += 1
                    if kind == "pair" and value % 2:  # gives one back before the other
                        module.server_state_lock["n"].release()
                        lock = module.server_state_lock["log"]
                        log = state["log"]
                        yield
                        log.append(value)
                finally:
                    lock.release()
                if is_nested:
                    yield
                    outer.release()
            yield

        return act

    def run(self):
        world, choose = self.world, self.random
        with world:
            for _ in range(choose.randrange(20, 120)):
                what = choose.random()
                sessions = list(world.sessions.values())
                if what < 0.5 and world.runners:
                    world.step_runner(choose.choice(world.runners))
                elif what < 0.65 and world.loop.soon:
                    world.step_loop()
                elif what < 0.7 and self.module._inspector.wake.is_set():
                    world.step_inspector()
                elif what < 0.75:
                    world.pass_time(choose.choice((0.001, 0.05, 0.3)))
                elif what < 0.8 and len(sessions) < 5:
                    world.connect(choose.choice("pq"))
                elif sessions:
                    self.happen(choose.choice(sessions), choose.random())
                del sessions
            world.settle()
            if choose.random() < 0.2:
                for session in world.sessions.values():
                    session.die()
                self.state["a"] = next(self.serial)
                world.settle()
            for session in world.sessions.values():
                if session.is_dead or not session.connected:
                    session.reconnect()
                    session.has_come_back = True
            world.settle()
            self.check()

    def happen(self, session, what):
        if session.is_dead and session.connected:
            session.connected = what < 0.3
        elif not session.connected and what < 0.5:
            session.reconnect()
            session.has_come_back = True
        elif not session.connected:
            if what > 0.8:
                del self.world.sessions[session.id]
        elif what < 0.6:
            fragment = self.random.choice([*session.fragments, None]) if what < 0.3 else None
            session.click(self.action(), fragment=fragment)
        elif what < 0.75:
            session.click(page=self.random.choice("pq"))
        elif what < 0.8:  # a button whose work is done below what was drawn (R1a: changes in place are left out)
            session.pressed = self.action(in_place="")
            session.click()
        elif what < 0.85:
            state, key, value = self.state, self.random.choice("ab"), next(self.serial)
            lock = self.module.server_state_lock["n", "log"]
            if value % 2:
                state[key] = value  # a thread
            elif lock.acquire(blocking=False):  # a worker, which takes what perhaps nobody has looked at
                if state.get("log"):
                    state["log"].pop()
                lock.release()
        elif what < 0.9:
            session.die()
        else:
            session.connected = False

    def check(self):
        assert not self.wrong, self.wrong
        for session in self.world.sessions.values():
            for (fragment, key), text in session.shown.items():
                if (
                    session.connected and not session.is_dead and not session.blank
                ):  # R2: a run that read nothing, and whose end was dropped
                    latest = self.latest(key)
                    assert text == latest, f"R4: {session.id} shows {key}={text} in {fragment}, latest is {latest}"
        assert self.latest("n") == repr(self.added or None), "L3: an increment under a lock was lost"
        alive = len(self.world.sessions)
        self.world.loop.timers.clear()
        gc.collect(0)
        if not is_idle(self.module):
            gc.collect()  # a script that was superseded, and is gone with its lock
        assert is_idle(self.module), "L3: a transaction was left"
        if len(self.module._sessions) > alive:
            gc.collect()
        assert len(self.module._sessions) <= alive, "S1: something is left of a dead session"


def simulate(seed):
    """Run a seed, and tell what is wrong."""
    try:
        Simulation(seed).run()
    except BaseException as error:
        return f"SEED={seed}: {error!r}"
    return None


class Simulated(unittest.TestCase):
    """One seed alone: SEED=123 python -m unittest test_server_state.Simulated; many, on all cores: SEEDS=from:to"""

    def test_R4_L3_S1_any_schedule(self):
        if "SEEDS" in os.environ:
            first, end = map(int, os.environ["SEEDS"].split(":"))
            with multiprocessing.Pool() as pool:
                wrong = [text for text in pool.imap_unordered(simulate, range(first, end), 200) if text]
            self.assertEqual(wrong, [])
            return
        seeds = [int(os.environ["SEED"])] if "SEED" in os.environ else range(3000)
        until = time.monotonic() + 3
        for done, seed in enumerate(seeds):
            self.assertIsNone(simulate(seed))
            if time.monotonic() > until and done > 500:
                break


class Readme(unittest.TestCase):
    def test_every_code_block_runs(self):
        text = (FILE.parent / "README.md").read_text()
        blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        self.assertEqual(len(blocks), 4)
        streamlit = mock.MagicMock()
        modules = {"streamlit": streamlit, "server_state": load(), "logging": mock.MagicMock()}
        with mock.patch.dict(sys.modules, modules):
            for block in blocks:
                names = {"__name__": "__main__"}
                exec(compile(block, "README.md", "exec"), names)
                if "import streamlit" in block:
                    streamlit.button.call_args.kwargs["on_click"]()
                if "def join" in block:
                    names["join"]("Ada")
            state = sys.modules["server_state"].server_state.to_dict()
        self.assertEqual(state["count"], 1)
        self.assertEqual(state["room"], {"users": {"Ada"}, "chat": ["Hello"]})


class Stress(unittest.TestCase):
    def test_M3_L1_L3_T1_real_threads(self):
        """Threads that interleave as finely as Python allows."""
        module, before, errors = load(), sys.getswitchinterval(), []
        state, locks = module.server_state, module.server_state_lock
        state.update(n=0, log=[], x=0)

        def work(number):
            try:
                for i in range(150):
                    with locks["n"]:
                        state.n += 1
                    with locks["log", "n"]:
                        state.log.append(i)
                    state[f"own {number}"] = i
                    state.pop(f"own {number}", None)
                    state.setdefault("once", number)
                    list(state.items())
                    with module.no_rerun:
                        state.x = {i}
            except BaseException as error:
                errors.append(error)

        sys.setswitchinterval(1e-6)
        try:
            threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(30)
        finally:
            sys.setswitchinterval(before)
        self.assertEqual(errors, [])
        self.assertEqual((state.n, len(state.log), is_idle(module)), (900, 900, True))
        self.assertEqual(set(state), {"n", "log", "x", "once"})


if __name__ == "__main__":
    unittest.main()
