"""A server of the explorer on a port of its own."""

from __future__ import annotations

import json
import re
import struct
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from explorer_page import CHROMIUM
from safetensors.numpy import load as parse

import onnxlens
from onnxlens.plugins.explorer import Engine, application
from onnxlens.plugins.explorer._server import free_socket


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keeps the tests of a module on one worker of xdist: they share a server and pages."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


@dataclass(frozen=True)
class Reply:
    """A response: its status, headers and body."""

    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def facts(self) -> Any:
        (length,) = struct.unpack("<Q", self.body[:8])
        return json.loads(json.loads(self.body[8 : 8 + length])["__metadata__"]["facts"])

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        return parse(self.body)


@dataclass(frozen=True)
class Server:
    """A running server: its address, and the engine behind it."""

    address: str
    engine: Engine

    def ask(self, path: str, body: Any = None, **headers: str) -> Reply:
        """Sends a request; a body is sent as JSON, or as it is if it is bytes."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(f"{self.address}{path}", data, {"content-type": "application/json", **named})
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return Reply(response.status, response.headers, response.read())
        except urllib.error.HTTPError as error:
            return Reply(error.code, error.headers, error.read())


@pytest.fixture(scope="session")
def served() -> Iterator[Callable[..., Server]]:
    """Starts a server of a bundle; the same one for the same arguments."""
    import uvicorn

    running: dict[Any, tuple[Any, threading.Thread, Any, Server]] = {}

    def start(bundle: Any = None, token: str | None = None, longest: float = 120) -> Server:
        key = bundle, token, longest
        if key not in running:
            lens = onnxlens.load(bundle, provider="cpu", threads=1)
            bound = free_socket("127.0.0.1", 0)
            port = bound.getsockname()[1]
            hosts = frozenset({f"127.0.0.1:{port}"}) if token is None else None
            app = application(Engine(lens), hosts=hosts, token=token, longest=longest)
            server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
            thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
            thread.start()
            while not server.started:
                thread.join(0.01)
            running[key] = (server, thread, lens, Server(f"http://127.0.0.1:{port}/", Engine(lens)))
        return running[key][3]

    yield start
    for server, thread, lens, _ in running.values():
        server.should_exit = True
        thread.join(30)
        lens.close()


@pytest.fixture(scope="session")
def launch() -> Iterator[Callable[..., Any]]:
    """Starts Chromium, with further arguments of its command line."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:

        def launch(*arguments: str) -> Any:
            known = ["--no-sandbox", "--disable-background-networking"]
            return playwright.chromium.launch(executable_path=CHROMIUM, args=[*known, *arguments])

        yield launch


@pytest.fixture(scope="session")
def browser(launch: Callable[..., Any]) -> Iterator[Any]:
    opened = launch()
    yield opened
    opened.close()


@pytest.fixture
def visit(browser: Any, served: Callable[..., Server]) -> Iterator[Callable[..., Any]]:
    """Opens the page with a state; fails on any console message, error, or request to another origin."""
    said: list[str] = []
    pages = []

    def visit(state: str = "", bundle: Any = None, *, allowed: str = "status of 400", **options: Any) -> Any:
        server = served(bundle)
        page = browser.new_page(**options)
        pages.append(page)
        # Chromium itself reports each error status of a response; the page shows the error.
        page.on("console", lambda message: allowed in message.text or said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda one: one.url.startswith((server.address, "data:", "blob:")) or said.append(one.url))
        page.goto(f"{server.address}#{state}")
        page.get_by_test_id("difference").wait_for()
        return page, server.engine

    yield visit
    for page in pages:
        page.close()
    assert said == []


@pytest.fixture
def from_disk(browser: Any) -> Iterator[Callable[[Path], Any]]:
    """Opens a page from a disk with the network off; fails on any message or request."""
    said: list[str] = []
    context = browser.new_context(offline=True)

    def from_disk(path: Path) -> Any:
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda one: one.url.startswith(("file:", "data:", "blob:")) or said.append(one.url))
        page.goto(path.as_uri())
        page.get_by_test_id("difference").wait_for()
        return page

    yield from_disk
    context.close()
    assert said == []


@pytest.fixture
def tiny_site(command: Any, tmp_path: Path) -> Path:
    """The folder of a site with the model that ships, made by the command."""
    made = command("explore", "Anna met Peter", "--site", str(tmp_path / "site"))
    assert made.code == 0 and re.search(r"site: \d+\.\d MB", made.out), made
    return tmp_path / "site"
