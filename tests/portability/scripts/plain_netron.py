"""Netron's page, in Chromium: it opens the graph, and shows the hook points by their names."""

from __future__ import annotations

import html
import re
import shutil
import sys
from contextlib import redirect_stdout

import netron
from cases import Case, cases, checking
from playwright.sync_api import Browser, Route, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def drawn(browser: Browser, case: Case) -> set[str]:
    """The texts in Netron's drawing of the graph with hook points."""
    with redirect_stdout(sys.stderr):
        address = netron.start(str(case.bundle / "onnx" / "model_hooks.onnx"), browse=False)
    home = f"http://{address[0]}:{address[1]}/"

    def only_from_here(route: Route) -> None:
        """Refuses what Netron's server does not serve: its page asks others who and where one is."""
        return route.continue_() if route.request.url.startswith(home) else route.abort()

    context = browser.new_context()
    # Else the page asks whether it may send reports.
    context.add_cookies([{"name": "consent", "value": "1", "url": home}])
    page = context.new_page()
    page.route("**/*", only_from_here)
    try:
        page.goto(home)
        page.wait_for_selector("svg text", state="attached", timeout=60_000)
        return {html.unescape(text) for text in re.findall(r"<text[^>]*>([^<]*)<", page.content())}
    finally:
        context.close()
        netron.stop(address)


with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
    for case in cases():
        with checking(case, "hook points"):
            points = {name for name in case.values if re.search(r"hook_|^logits$", name) and "grad." not in name}
            assert len(points) > 30
            missing = points - drawn(browser, case)
            assert not missing, f"not drawn: {sorted(missing)[:5]}"
    browser.close()
