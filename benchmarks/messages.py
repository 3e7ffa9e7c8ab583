"""Messages of a chat, made of what people keep in them. Copied beside the apps that are measured."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
from collections.abc import Callable
from typing import Any

WITH_A_SET = "dicts of text, a set beside the list"
EMOJI = "😀🎉👍🚀🐍🌍"


class Kind(enum.Enum):
    QUESTION = "question"
    ANSWER = "answer"


@dataclasses.dataclass
class Message:
    user: str
    text: str
    at: float


@dataclasses.dataclass(slots=True)
class SlottedMessage:
    user: str
    text: str
    at: float


class PlainMessage:
    def __init__(self, user: str, text: str, at: float) -> None:
        self.user = user
        self.text = text
        self.at = at


def user(number: int) -> str:
    return f"user {number % 7}"


def text(number: int) -> str:
    return f"message number {number}, of the usual length"


def emoji(number: int) -> str:
    return f"{text(number)} {EMOJI[number % len(EMOJI)]}"


def at(number: int) -> float:
    return 1.7e9 + number * 1.37


def moment(number: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(at(number), datetime.timezone.utc)


def kind(number: int) -> Kind:
    return Kind.QUESTION if number % 3 == 0 else Kind.ANSWER


def price(number: int) -> decimal.Decimal:
    return decimal.Decimal(number) / 100


def dict_of_text(number: int) -> Any:
    return {"user": user(number), "text": text(number)}


def dict_with_float(number: int) -> Any:
    return {"user": user(number), "text": text(number), "at": at(number)}


def dict_of_cyrillic(number: int) -> Any:
    return {"user": f"участник {number % 7}", "text": f"сообщение номер {number}, обычной длины"}


def dict_with_emoji(number: int) -> Any:
    return {"user": user(number), "text": emoji(number)}


def dict_with_datetime(number: int) -> Any:
    return {"user": user(number), "text": text(number), "at": moment(number)}


def dict_with_enum_and_decimal(number: int) -> Any:
    return {"user": user(number), "text": text(number), "kind": kind(number), "price": price(number)}


def in_dataclass(number: int) -> Any:
    return Message(user(number), emoji(number), at(number))


def in_slots(number: int) -> Any:
    return SlottedMessage(user(number), text(number), at(number))


def in_plain_object(number: int) -> Any:
    return PlainMessage(user(number), text(number), at(number))


MAKERS: dict[str, Callable[[int], Any]] = {
    "dicts of text": dict_of_text,
    "dicts with float timestamps": dict_with_float,
    "dicts of Cyrillic text": dict_of_cyrillic,
    "dicts with emoji": dict_with_emoji,
    "dicts with an aware `datetime`": dict_with_datetime,
    "dataclasses": in_dataclass,
    "dataclasses with slots": in_slots,
    "dicts with enums and decimals": dict_with_enum_and_decimal,
    WITH_A_SET: dict_of_text,
    "plain objects of an own class": in_plain_object,
}


def chat(what: str, length: int) -> list[Any]:
    return [MAKERS[what](number) for number in range(length)]
