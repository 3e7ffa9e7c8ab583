"""Pages of a real Chromium, driven by Playwright. Screenshots of failures are kept."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from playwright.sync_api import Browser, Page, WebSocket, expect, sync_playwright
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

from chromium import launch
from streamlit_client import RealServerCase, Server

FAILURES = Path(os.environ.get("E2E_FAILURES", "e2e-failures"))  # screenshots go here
PATIENCE = 20_000  # milliseconds that anything may take
expect.set_options(timeout=PATIENCE)

# What is drawn outside of the window, to its left or its right.
CUT_OFF = """() => [...document.querySelectorAll("main *, section.main *, [data-testid=stMain] *")].filter(element => {
    const box = element.getBoundingClientRect();
    return box.width > 1 && box.height > 1 && (box.left < 0 || box.right > innerWidth + 1);
}).map(element => element.outerHTML.slice(0, 100))"""


def write(page: Page, text: str) -> None:
    """Send something with the chat's input."""
    box = page.get_by_test_id("stChatInputTextArea")
    box.fill(text)
    box.press("Enter")


def keeps_screenshots(test: Callable[[Any], None]) -> Callable[[Any], None]:
    """Have a test leave pictures of its pages when it fails."""

    @functools.wraps(test)
    def kept(case: TwoTabs) -> None:
        try:
            test(case)
        except BaseException:
            FAILURES.mkdir(exist_ok=True)
            for number, page in enumerate(case.pages):
                page.screenshot(path=FAILURES / f"{test.__name__}-{number}.png")
            raise

    return kept


class TwoTabs(RealServerCase):
    """A test with pages of Chromium, which are closed when it ends."""

    browser: ClassVar[Browser]

    @classmethod
    def setUpClass(cls) -> None:
        playwright = sync_playwright().start()
        cls.addClassCleanup(playwright.stop)
        cls.browser = launch(playwright)
        cls.addClassCleanup(cls.browser.close)

    def setUp(self) -> None:
        self.pages: list[Page] = []
        self.runs_of: dict[Page, int] = {}  # of scripts and fragments, since the page was opened

    def open(
        self,
        server: Server,
        path: str = "",
        port: int = 0,
        width: int = 860,
        color_scheme: Literal["light", "dark"] = "light",
    ) -> Page:
        context = self.browser.new_context(viewport={"width": width, "height": 760}, color_scheme=color_scheme)
        self.addCleanup(context.close)
        page = context.new_page()
        self.pages.append(page)
        self.runs_of[page] = 0

        def hear(data: str | bytes) -> None:
            message = ForwardMsg()
            message.ParseFromString(data if isinstance(data, bytes) else data.encode())
            self.runs_of[page] += message.WhichOneof("type") == "new_session"

        def listen(socket: WebSocket) -> None:
            socket.on("framereceived", hear)

        page.on("websocket", listen)
        page.goto(f"http://127.0.0.1:{port or server.port}/{path}")
        return page

    def pair(self, text: str, files: Mapping[str, str] | None = None, **options: str) -> tuple[Page, Page]:
        self.server = self.serve(text, files, **options)
        return self.open(self.server), self.open(self.server)

    def sizes(self, server: Server) -> Iterator[Page]:
        """Open a page at each of the sizes and colours that apps are made for."""
        schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
        for width in (1280, 400):
            for color_scheme in schemes:
                with self.subTest(width=width, color_scheme=color_scheme):
                    yield self.open(server, width=width, color_scheme=color_scheme)
