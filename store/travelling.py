"""Classes whose objects travel between the processes of the tests: they stand in a module, as an app's should."""

from __future__ import annotations

import dataclasses
import datetime
import os
from typing import Any


@dataclasses.dataclass
class Message:
    author: str
    text: str
    sent: datetime.datetime


class Bomb:
    """What unpickles it makes a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)
