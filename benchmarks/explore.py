"""Measures the explorer in headless Chromium, as a reader of the page would: from opening it, from each keystroke.

    python benchmarks/explore.py --tokenizer tokenizer.json            # prints the table
    python benchmarks/explore.py --tokenizer tokenizer.json --write    # and puts it into docs/explorer.md

The large model has GPT-2 124M's shape and random weights: times do not depend on their values.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click
import onnxruntime
from pages import publish
from playwright.sync_api import Browser, Page, sync_playwright
from run import exported, processor

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "explorer.md"

EXAMPLE = "When Mary and John went to the shop, John gave a drink to"
Row = tuple[str, str, str]

# Each returns milliseconds until what was asked for has been painted.
_PAINTED = """
const painted = (test) => new Promise((done) => {
  const check = () => test() && (observer.disconnect(), requestAnimationFrame(() => requestAnimationFrame(done)));
  const observer = new MutationObserver(check);
  observer.observe(document.body, { childList: true, subtree: true, characterData: true, attributes: true });
  check();
});
"""
_TYPE = (
    "async ([text]) => {"
    + _PAINTED
    + """
  const box = document.querySelector("[data-testid=text]");
  const { boards } = document.querySelector("main").dataset;
  const started = performance.now();
  box.value = text;
  box.dispatchEvent(new InputEvent("input", { bubbles: true }));
  await painted(() => document.querySelector("main").dataset.boards !== boards);
  return performance.now() - started;
}"""
)
_OPEN = (
    "async ([opener, panel]) => {"
    + _PAINTED
    + """
  const started = performance.now();
  document.querySelector(`[data-testid="${opener}"]`).click();
  await painted(() => location.hash.includes(panel) && document.querySelector(".drawer h2"));
  return performance.now() - started;
}"""
)
DRAG = """async () => {
  const slider = document.querySelector("[data-testid=temperature]");
  const [low, high] = [Number(slider.min), Number(slider.max)];
  const frames = [];
  let last = performance.now();
  for (let step = 0; step < 120; step++) {
    slider.value = String(low + ((high - low) * (1 + Math.sin(step / 9))) / 2);
    slider.dispatchEvent(new InputEvent("input", { bubbles: true }));
    await new Promise(requestAnimationFrame);
    const now = performance.now();
    frames.push(now - last);
    last = now;
  }
  return frames.slice(10);
}"""


@click.command()
@click.option("--tokenizer", type=click.Path(path_type=Path), help="GPT-2's tokenizer.json.", required=True)
@click.option("--rounds", default=7, show_default=True)
@click.option("--write", is_flag=True, help=f"Put the table into {PAGE.relative_to(ROOT)}.")
def main(tokenizer: Path, rounds: int, write: bool) -> None:
    """Measure the page with the model that ships, and at GPT-2 124M's shape."""
    os.environ["ONNXLENS_CACHE"] = str(ROOT / "build" / "benchmarks" / "cache")
    large = str(exported(tokenizer))
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    rows: list[Row] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-background-networking"]
        )
        with server() as address:
            rows += opened(browser, address, rounds)
            rows += typed(browser, address, rounds, "the model that ships", "100 ms")
        with server("-m", large) as address:
            rows += typed(browser, address, rounds, "124M", "300 ms")
            rows += dragged(browser, address)
            rows += long(browser, address)
        browser.close()
    lines = ["| what | measured | wanted |", "| --- | --- | --- |", *(f"| {' | '.join(row)} |" for row in rows)]
    machine = (
        f"{processor()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"ONNX Runtime {onnxruntime.__version__}, Chromium headless"
    )
    publish("\n".join([f"Measured on: {machine}. Medians.", "", *lines]), PAGE, Path(__file__).name, write=write)


@contextlib.contextmanager
def server(*arguments: str) -> Iterator[str]:
    """Runs `onnxlens explore`, and yields its address."""
    command = [sys.executable, "-P", "-m", "onnxlens", "explore", "--no-browser", "--port", "0", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().split(": ", 1)[1].strip()
    finally:
        process.terminate()
        process.wait()


def opened(browser: Browser, address: str, rounds: int) -> list[Row]:
    """From opening the page to the first board."""
    found = []
    for _ in range(rounds):
        page = browser.new_page()
        page.goto(address, wait_until="commit")
        page.get_by_test_id("difference").wait_for()
        found.append(page.evaluate("performance.now()"))
        page.close()
    return [("first board after the page opens, the model that ships", milliseconds(found), "500 ms")]


def typed(browser: Browser, address: str, rounds: int, name: str, wanted: str) -> list[Row]:
    """From a keystroke at 20 tokens to the board, and from a click to the drawer."""
    page = visit(browser, address, EXAMPLE)
    text, keys = EXAMPLE, []
    text += " the man and the dog"
    page.evaluate(_TYPE, [text])
    for _ in range(rounds):
        for letter in " of":
            text += letter
            keys.append(page.evaluate(_TYPE, [text]))
        text = text[:-3]
        keys.append(page.evaluate(_TYPE, [text]))
    panels = []
    for block in range(5):
        panels.append(page.evaluate(_OPEN, [f"head-{block}-0", f"head:{block},0"]))
        panels.append(page.evaluate(_OPEN, [f"cell-{block}-3", f"cell:{block},3"]))
    page.close()
    return [
        (f"from a keystroke to the board at 20 tokens, {name}", milliseconds(keys), wanted),
        (f"a panel opens, {name}", milliseconds(panels), "50 ms"),
    ]


def dragged(browser: Browser, address: str) -> list[Row]:
    """Frames while the temperature is dragged, over the full vocabulary of 50,257 tokens."""
    page = visit(browser, address, EXAMPLE)
    frames = page.evaluate(DRAG)
    page.close()
    rate = 1000 / statistics.median(frames)
    return [("frames a second while a slider is dragged, 50,257 logits", f"{rate:.0f}", "60")]


def long(browser: Browser, address: str) -> list[Row]:
    """Memory of the tab at 1,000 tokens."""
    page = visit(browser, address, " ".join([EXAMPLE + "."] * 67)[:-1])
    session = page.context.new_cdp_session(page)
    session.send("HeapProfiler.collectGarbage")
    heap = session.send("Runtime.getHeapUsage")
    used = sum(heap.get(name, 0) for name in ("usedSize", "embedderHeapUsedSize", "backingStorageSize"))  # arrays, too
    tokens = page.evaluate("document.querySelector('[data-testid=model]').textContent")
    page.close()
    count = max(int(word) for word in tokens.replace(",", "").split() if word.isdigit())
    return [(f"memory of the tab at {count:,} tokens, 124M", f"{used / 1e6:.0f} MB", "300 MB")]


def visit(browser: Browser, address: str, text: str) -> Page:
    """Opens the page with a text, and waits for its board."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(f"{address}#text={quote(text)}")
    page.get_by_test_id("difference").wait_for(timeout=120_000)
    page.wait_for_timeout(1500)
    return page


def milliseconds(found: list[Any]) -> str:
    """The median, for a table."""
    return f"{statistics.median(found):.0f} ms"


if __name__ == "__main__":
    main()
