"""Makes the picture of the explorer, docs/images/explore.png, in headless Chromium: `python docs/screenshot.py`."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import uvicorn
from playwright.sync_api import sync_playwright

import onnxlens
from onnxlens.plugins.explorer import Engine, application, free_socket

PICTURE = Path(__file__).parent / "images" / "explore.png"


def main() -> None:
    """Makes the picture with the model that ships."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    bound = free_socket("127.0.0.1", 0)
    with onnxlens.load(provider="cpu") as lens, sync_playwright() as playwright:
        server = uvicorn.Server(uvicorn.Config(application(Engine(lens)), log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 1120}, color_scheme="light")
        page.goto(f"http://127.0.0.1:{bound.getsockname()[1]}/")
        for measured in ("arithmetic", "kind", "head-ablated"):
            page.get_by_test_id(measured).wait_for()
        page.screenshot(path=PICTURE)
        browser.close()
        server.should_exit = True
        thread.join()
    print(PICTURE)


if __name__ == "__main__":
    main()
