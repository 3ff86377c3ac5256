"""Runs a page in Chromium, and prints what it says.

    in_chromium.py FOLDER SCRIPT PACKAGES    a script of this folder, on the bundles in FOLDER, with npm's PACKAGES
    in_chromium.py FOLDER PAGE               a page in FOLDER, which writes its result into the element `output`

The page reaches what is served here, and nothing else.
"""

from __future__ import annotations

import http.server
import shutil
import sys
import threading
from pathlib import Path

from playwright.sync_api import Page, Route, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FOLDER, NAME, *PACKAGES = sys.argv[1:]
PLACES = {
    "page": FOLDER,
    "bundles": FOLDER,
    "scripts": str(Path(__file__).parent),
    "node_modules": f"{PACKAGES[0]}/node_modules" if PACKAGES else "/nowhere",
}
PATIENCE = 120  # seconds


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves the folders by their names, and an empty page that runs the script."""

    def guess_type(self, path: str) -> str:  # type: ignore[override]
        """The type of a file, by its name; those of scripts and WebAssembly are not known everywhere."""
        known = {".mjs": "text/javascript", ".js": "text/javascript", ".wasm": "application/wasm"}
        return known.get(Path(path).suffix) or super().guess_type(path)

    def translate_path(self, path: str) -> str:
        """The file behind an address."""
        place, _, rest = path.partition("?")[0].lstrip("/").partition("/")
        return str(Path(PLACES.get(place, "/nowhere")) / rest)

    def do_GET(self) -> None:
        """Answers a request."""
        if self.path != "/":
            return super().do_GET()
        page = f'<!doctype html><script type="module" src="/scripts/{NAME}"></script>'.encode()
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.send_header("content-length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)
        return None

    def log_message(self, *text: object) -> None:
        """Says nothing: the output is the page's."""


def run(page: Page, home: str) -> str | None:
    """Runs the script or the page; returns what went wrong."""
    ended: list[str | None] = []

    def only_from_here(route: Route) -> None:
        """Refuses what is not served here."""
        if route.request.url.startswith((home, "blob:", "data:")):
            return route.continue_()
        ended.append(f"The page asked for {route.request.url}.")
        return route.abort()

    page.route("**/*", only_from_here)
    page.on("console", lambda message: print(message.text, file=sys.stderr))
    page.on("pageerror", lambda error: ended.append(str(error)))
    page.expose_function("report", lambda line: print(line, flush=True))
    page.expose_function("done", lambda error: ended.append(error))
    page.goto(home if PACKAGES else f"{home}page/{NAME}")
    for _ in range(PATIENCE * 20):
        said = None if PACKAGES else page.locator("#output").text_content()
        if said:
            print(said)
        if ended or said:
            return ended[0] if ended else None
        page.wait_for_timeout(50)
    return f"The page did not end within {PATIENCE} seconds."


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
    wrong = run(browser.new_page(), f"http://127.0.0.1:{server.server_port}/")
    browser.close()
server.shutdown()
sys.exit(wrong)
