"""Real Streamlit servers on loopback, and tabs without a browser, which speak Streamlit's own messages."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.request
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.proto.WidgetStates_pb2 import WidgetState
from waiting import DEADLINE as DEADLINE  # tests take these from here, too
from waiting import free_port as free_port
from waiting import wait_for as wait_for
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

ROOT = Path(__file__).resolve().parent.parent
APPS = Path(__file__).resolve().parent / "apps"


def app(name: str) -> str:
    """Give the text of one of the apps."""
    return (APPS / f"{name}.py").read_text()


class Server:
    """`streamlit run` of an app in a folder of its own, with `server_state.py` copied beside it.

    `files` are texts by their names; `options` are Streamlit's, with `__` for the dot; `command` is what comes after
    `python -m` in place of Streamlit's own, with {port} in it.
    """

    def __init__(
        self, app: str, files: Mapping[str, str] | None = None, command: str | None = None, **options: str
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="server_state_e2e_"))
        shutil.copy(ROOT / "server_state.py", self.folder)
        for name, text in {"app.py": app, **(files or {})}.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.port = free_port()
        defaults = {
            "server.address": "127.0.0.1",
            "server.port": str(self.port),
            "server.headless": "true",
            "browser.gatherUsageStats": "false",
        }
        given = {name.replace("__", "."): value for name, value in options.items()}
        settings = [f"--{name}={value}" for name, value in {**defaults, **given}.items()]
        own = command.format(port=self.port).split() if command else ["streamlit", "run", "app.py", *settings]
        self.log = open(self.folder / "server.log", "w+")  # noqa: SIM115 - closed in stop()
        self.process = subprocess.Popen(
            [sys.executable, "-m", *own],
            cwd=self.folder,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        wait_for("the server's health", self.is_healthy)

    def is_healthy(self) -> bool:
        assert self.process.poll() is None, f"the server ended: {self.output()}"
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/_stcore/health", timeout=1) as answer:
            return bool(answer.status == 200)
        return False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def output(self) -> str:
        self.log.flush()
        return (self.folder / "server.log").read_text()

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
        self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class Proxy:
    """A TCP proxy in front of a server. It can drop all bytes without a word, cut all connections, and restore them."""

    def __init__(self, port: int) -> None:
        self.target, self.port, self.is_cut, self.sockets = port, free_port(), False, set[socket.socket]()
        self.is_silent = False
        self.dropped = 0  # bytes
        self.listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                if self.is_cut:
                    client.close()
                    continue
                server = socket.create_connection(("127.0.0.1", self.target))
                self.sockets |= {client, server}
                for source, sink in ((client, server), (server, client)):
                    threading.Thread(target=self.pump, args=(source, sink), daemon=True).start()

    def pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if self.is_silent:
                    self.dropped += len(data)
                else:
                    sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
            self.sockets.discard(end)

    def silence(self) -> None:
        """Make all connections half-open: both ends go on as if nothing were, and hear nothing."""
        self.is_silent = True

    def cut(self) -> None:
        self.is_cut = True
        for end in list(self.sockets):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def restore(self) -> None:
        self.is_cut = self.is_silent = False

    def close(self) -> None:
        self.cut()
        self.listener.close()


class Tab:
    """One session: what it shows, how often its script and its fragments ran, and its widgets. To be closed."""

    def __init__(self, server: Server | Proxy, query: str = "", patience: float = DEADLINE) -> None:
        self.query = query
        self.shown: dict[tuple[int, ...], str] = {}  # text by place on the page
        self.widgets: dict[str, Any] = {}  # the element by its label or placeholder
        self.fragments: dict[str, str] = {}  # the fragment that it stands in
        self.values: dict[str, Any] = {}  # what this user set a widget to
        self.session_id = self.page = ""
        self.started = self.script_runs = self.fragment_runs = self.interrupted = 0
        self.running = False
        self.url = f"ws://127.0.0.1:{server.port}/_stcore/stream"
        self.lock = threading.Lock()
        self.open()
        self.send()
        wait_for("the first run", lambda: self.script_runs and not self.running, patience)

    def open(self, *protocols: str) -> None:
        self.opened = contextlib.ExitStack()
        subprotocols: Any = protocols or None
        self.socket = self.opened.enter_context(
            connect(
                self.url,
                max_size=None,
                open_timeout=DEADLINE,
                ping_interval=None,
                close_timeout=1,
                subprotocols=subprotocols,
            )
        )
        self.listener = threading.Thread(target=self.listen, daemon=True)
        self.listener.start()

    def reconnect(self) -> None:
        """Come back to the same session as a browser does, without asking for a run."""
        self.close()
        self.open("streamlit", "PLACEHOLDER_AUTH_TOKEN", self.session_id)

    def listen(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            for data in self.socket:
                message = ForwardMsg()
                message.ParseFromString(data)
                self.hear(message)

    def hear(self, message: ForwardMsg) -> None:
        kind = message.WhichOneof("type")
        if kind == "new_session":
            self.session_id, self.page = message.new_session.initialize.session_id, message.new_session.page_script_hash
            self.started += 1
        elif kind == "session_status_changed":
            self.running = message.session_status_changed.script_is_running
        elif kind == "script_finished":
            self.script_runs += message.script_finished == ForwardMsg.FINISHED_SUCCESSFULLY
            self.fragment_runs += message.script_finished == ForwardMsg.FINISHED_FRAGMENT_RUN_SUCCESSFULLY
            # A run whose end was still queued when the next began is reported so, too: use it where runs are far apart.
            self.interrupted += message.script_finished == ForwardMsg.FINISHED_EARLY_FOR_RERUN
        elif kind == "delta" and message.delta.WhichOneof("type") == "new_element":
            self.draw(tuple(message.metadata.delta_path), message.delta.new_element, message.delta.fragment_id)

    def draw(self, place: tuple[int, ...], element: Any, fragment: str) -> None:
        kind = element.WhichOneof("type")
        inner = getattr(element, kind)
        text = getattr(inner, "body", "") or getattr(inner, "message", "")
        with self.lock:
            self.shown[place] = text
            name = getattr(inner, "label", "") or getattr(inner, "placeholder", "")
            if hasattr(inner, "id") and name:
                self.widgets[name], self.fragments[name] = inner, fragment

    def text(self) -> str:
        with self.lock:
            return "\n".join(text for _, text in sorted(self.shown.items()))

    def send(self, trigger: tuple[str, str, Any] | None = None) -> None:
        message = BackMsg()
        state = message.rerun_script
        state.query_string = self.query
        state.page_script_hash = self.page
        for name, (field, value) in self.values.items():
            self.set_widget(state, name, field, value)
        if trigger is not None:
            self.set_widget(state, *trigger)
            state.fragment_id = self.fragments[trigger[0]]
        self.socket.send(message.SerializeToString())

    def rerun_fragment(self, label: str) -> None:
        """Ask for the fragment that a widget stands in, as the browser does for `run_every`."""
        message = BackMsg()
        message.rerun_script.page_script_hash = self.page
        message.rerun_script.fragment_id = self.fragments[label]
        self.socket.send(message.SerializeToString())

    def set_widget(self, state: Any, name: str, field: str, value: Any) -> None:
        widget = state.widget_states.widgets.add()
        widget.id = self.widgets[name].id
        if field in ("string_trigger_value", "chat_input_value"):
            getattr(widget, field).data = value
        elif field == "double_array_value":
            widget.double_array_value.data.append(value)
        elif field in ("string_array_value", "int_array_value"):
            getattr(widget, field).data.extend(value)
        else:
            setattr(widget, field, value)

    def click(self, label: str) -> None:
        self.send((label, "trigger_value", True))

    def say(self, placeholder: str, text: str) -> None:
        is_old = "chat_input_value" not in WidgetState.DESCRIPTOR.fields_by_name
        self.send((placeholder, "string_trigger_value" if is_old else "chat_input_value", text))

    def put(self, label: str, field: str, value: Any) -> None:
        self.values[label] = (field, value)
        self.send()

    def wait_for_text(self, text: str, deadline: float = DEADLINE) -> None:
        try:
            wait_for(f"{text!r} to be shown", lambda: text in self.text(), deadline)
        except AssertionError as error:
            raise AssertionError(f"{error}; shown is {self.text()!r}") from None

    def close(self) -> None:
        self.opened.close()
        self.listener.join(DEADLINE)


class RealServerCase(unittest.TestCase):
    """A test with servers and tabs that are closed when it ends."""

    def serve(
        self, app: str, files: Mapping[str, str] | None = None, command: str | None = None, **options: str
    ) -> Server:
        server = Server(app, files, command, **options)
        self.addCleanup(server.stop)
        return server

    def tabs(self, server: Server | Proxy, count: int) -> list[Tab]:
        with ThreadPoolExecutor(8) as pool:
            tabs = list(pool.map(lambda _: Tab(server), range(count)))
        for tab in tabs:
            self.addCleanup(tab.close)
        return tabs

    def runs(self, *tabs: Tab) -> list[tuple[int, int]]:
        """Script and fragment runs of each tab, once nothing has begun or ended for a second."""
        last: dict[int, tuple[int, int, int, bool]] = {}
        quiet_since = time.monotonic()

        def settled() -> bool:
            nonlocal last, quiet_since
            now = {id(tab): (tab.started, tab.script_runs, tab.fragment_runs, tab.running) for tab in tabs}
            if now != last:
                last, quiet_since = now, time.monotonic()
            return time.monotonic() - quiet_since > 1 and not any(tab.running for tab in tabs)

        wait_for("all runs to end", settled)
        return [(tab.script_runs, tab.fragment_runs) for tab in tabs]

    def assert_runs(self, act: Callable[[], None], expected: list[tuple[int, int]], *tabs: Tab) -> None:
        """Act, and compare how many script runs and fragment runs each tab made of it."""
        before = self.runs(*tabs)
        interrupted = [tab.interrupted for tab in tabs]
        act()
        after = self.runs(*tabs)
        more = [(a[0] - b[0], a[1] - b[1]) for a, b in zip(after, before, strict=True)]
        self.assertEqual(more, expected)
        self.assertEqual([tab.interrupted for tab in tabs], interrupted)
