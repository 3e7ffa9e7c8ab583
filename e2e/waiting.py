"""Conditions in place of sleeps, and free ports: for all tests that have real parts."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any

DEADLINE = 30.0  # seconds that anything may take


def wait_for(what: str, condition: Callable[[], Any], deadline: float = DEADLINE) -> Any:
    """Wait until a condition holds, and give its value. AssertionError that names it after `deadline` seconds."""
    until = time.monotonic() + deadline
    while not (value := condition()):
        if time.monotonic() > until:
            raise AssertionError(f"waited {deadline:.0f} s in vain for: {what}")
        time.sleep(0.01)
    return value


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
