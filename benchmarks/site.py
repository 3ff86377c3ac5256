"""Measures sites in headless browsers: models that run there, with one thread and with several.

    python benchmarks/site.py --tokenizer tokenizer.json --gguf SmolLM2-135M-Instruct.Q4_1.gguf
    python benchmarks/site.py … --firefox                    # in Firefox, too; needs Node
    python benchmarks/site.py … --write                      # and puts the table into docs/explorer.md

GPT-2 124M's shape has random weights: times do not depend on their values. SmolLM2 is stored as float16.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
from explore import DRAG, EXAMPLE
from pages import publish
from playwright.sync_api import Browser, Playwright, sync_playwright
from run import exported, processor

ROOT = Path(__file__).parents[1]
WORK = ROOT / "build" / "benchmarks"
PAGE = ROOT / "docs" / "explorer.md"

# The headers that let a browser compute with several threads.
_ISOLATED = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
# Milliseconds of each run that reads all hook points of 20 tokens; other tokens each time, since runs are kept.
_READ = """async ([rounds]) => {
  const engine = window.onnxlensEngine, found = [];
  const reads = (await engine.model()).hook_points.map((point) => point.name);
  for (let round = 0; round < rounds + 1; round++) {
    const ids = Array.from({ length: 20 }, (_, place) => 100 + 31 * round + place);
    const started = performance.now();
    await engine.run({ ids, reads });
    found.push(performance.now() - started);
  }
  return found.slice(1);
}"""
_GENERATE = """async ([text, most]) => {
  let count = 0, started = 0;
  const request = { text, max_new_tokens: most, temperature: 1, seed: 1 };
  for await (const _ of window.onnxlensEngine.continue(request)) if (count++ === 0) started = performance.now();
  return (1000 * (count - 1)) / (performance.now() - started);
}"""
_LOADED = "async ([text]) => { await window.onnxlensEngine.tokenize({ text }); return performance.now(); }"


@dataclass(frozen=True)
class Measured:
    """What one visit of a site measured; times in seconds, memory in bytes."""

    first_board: float
    loaded: float
    read: float
    tokens: float
    frames: float
    memory: int | None = None


@click.command()
@click.option("--tokenizer", type=click.Path(path_type=Path), help="GPT-2's tokenizer.json.", required=True)
@click.option("--gguf", type=click.Path(path_type=Path), help="SmolLM2-135M's GGUF file; without it, not measured.")
@click.option("--firefox", is_flag=True, help="Measure in Firefox, too.")
@click.option("--rounds", default=7, show_default=True)
@click.option("--write", is_flag=True, help=f"Put the table into {PAGE.relative_to(ROOT)}.")
def main(tokenizer: Path, gguf: Path | None, firefox: bool, rounds: int, write: bool) -> None:
    """Measure sites of the model that ships, of GPT-2 124M's shape, and of SmolLM2."""
    os.environ["ONNXLENS_CACHE"] = str(WORK / "cache")
    models = {"the model that ships": None, "GPT-2 124M's shape": exported(tokenizer)}
    if gguf is not None:
        models["SmolLM2-135M, stored as float16"] = stored_as_float16(gguf)
    lines = [
        "| model | browser | threads | first board | model ready | all hook points of 20 tokens | generation "
        "| slider of the temperature | peak memory |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    with sync_playwright() as playwright, TemporaryDirectory() as scratch:
        for number, (name, model) in enumerate(models.items()):
            folder = Path(scratch) / str(number)
            written(folder, model)
            for visit in (partial(in_chromium, playwright), *([in_firefox] if firefox else [])):
                for headers in ({}, _ISOLATED):
                    with hosted(folder, headers) as address:
                        browser, found = visit(address, rounds)
                    threads = min(4, os.cpu_count() or 1) if headers else 1
                    lines.append(f"| {name} | {browser} | {threads} | {' | '.join(cells(found))} |")
    package = (ROOT / "plugins/explorer/web/package.json").read_text(encoding="utf-8")
    runtime = re.search(r'"onnxruntime-web": "([^"]+)"', package)
    assert runtime is not None
    machine = f"{processor()}, {os.cpu_count()} cores, {platform.system()}, ONNX Runtime Web {runtime[1]}"
    publish("\n".join([f"Measured on: {machine}.", "", *lines]), PAGE, Path(__file__).name, write=write)


def cells(found: Measured) -> list[str]:
    """The cells of the table."""
    return [
        f"{found.first_board:.1f} s",
        f"{found.loaded:.1f} s",
        f"{1000 * found.read:.0f} ms",
        f"{found.tokens:.0f} tokens/s",
        f"{found.frames:.0f} frames/s",
        "not measured" if found.memory is None else f"{found.memory / 1e6:,.0f} MB",
    ]


def stored_as_float16(gguf: Path) -> Path:
    """Exports a model with its matrices stored as float16, unless it is there already."""
    bundle = WORK / "smollm2-float16"
    if not (bundle / "onnxlens.json").is_file():
        _run("export", str(gguf), str(bundle), "--storage", "float16", "--force")
    return bundle


def written(folder: Path, model: Path | None) -> None:
    """Writes a site."""
    _run("explore", EXAMPLE, "--site", str(folder), *(() if model is None else ("-m", str(model))))


def _run(*arguments: str) -> None:
    subprocess.run([sys.executable, "-P", "-m", "onnxlens", *arguments], check=True, stdout=subprocess.DEVNULL)


class _Files(http.server.SimpleHTTPRequestHandler):
    """Serves files with further headers; reports nothing."""

    def __init__(self, *arguments: object, headers_added: dict[str, str], **options: object) -> None:
        self.headers_added = headers_added
        super().__init__(*arguments, **options)  # type: ignore[arg-type]

    def end_headers(self) -> None:
        for name, value in self.headers_added.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def hosted(folder: Path, headers: dict[str, str]) -> Iterator[str]:
    """Serves a folder, and yields its address."""
    handler = partial(_Files, directory=str(folder), headers_added=headers)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


def in_chromium(playwright: Playwright, address: str, rounds: int) -> tuple[str, Measured]:
    """Opens a site for the first time in Chromium, and uses it; returns the browser's name, too."""
    browser = playwright.chromium.launch(
        executable_path=shutil.which("chromium") or shutil.which("google-chrome"),
        args=["--no-sandbox", "--disable-background-networking"],
    )
    page = browser.new_context(service_workers="block", viewport={"width": 1280, "height": 900}).new_page()
    page.set_default_timeout(300_000)
    page.goto(address, wait_until="commit")
    page.get_by_test_id("difference").wait_for()
    found = [page.evaluate("performance.now()")]
    found += [page.evaluate(step["code"], step["arguments"]) for step in steps(rounds)]
    peak = _peak(browser)
    name = f"Chromium {browser.version.split('.')[0]}"
    browser.close()
    return name, measured(found, peak)


def in_firefox(address: str, rounds: int) -> tuple[str, Measured]:
    """Opens a site for the first time in Firefox, and uses it; returns the browser's name, too."""
    firefox = shutil.which("firefox-esr") or shutil.which("firefox")
    if firefox is None:
        raise click.ClickException("--firefox needs Firefox on the PATH: apt-get install firefox-esr")
    folder = WORK / "firefox"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "node_modules").is_dir():
        package = ["npm", "install", "--prefix", str(folder), "--ignore-scripts", "--no-fund", "puppeteer-core@25"]
        subprocess.run(package, check=True, stdout=subprocess.DEVNULL)
    script = shutil.copy(Path(__file__).with_name("firefox.mjs"), folder)
    command = ["node", script, firefox, address, json.dumps(steps(rounds))]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    answer = json.loads(done.stdout)
    return f"Firefox {re.findall(r'[0-9]+', answer['version'])[0]}", measured(answer["found"])


def steps(rounds: int) -> list[dict[str, Any]]:
    """What is evaluated in the page, one after the other."""
    return [
        {"code": _LOADED, "arguments": [EXAMPLE]},
        {"code": _READ, "arguments": [rounds]},
        {"code": _GENERATE, "arguments": [EXAMPLE, 48]},
        {"code": DRAG, "arguments": []},
    ]


def measured(found: list[Any], memory: int | None = None) -> Measured:
    """The times of the first board and of all steps."""
    first, loaded, read, tokens, frames = found
    return Measured(
        first / 1000,
        loaded / 1000,
        statistics.median(read) / 1000,
        tokens,
        1000 / statistics.median(frames),
        memory,
    )


def _peak(browser: Browser) -> int:
    """The most memory that a process of a page has had, in bytes."""
    processes = browser.new_browser_cdp_session().send("SystemInfo.getProcessInfo")["processInfo"]
    found = [0]
    for process in processes:
        if process["type"] == "renderer":
            status = Path(f"/proc/{process['id']}/status").read_text(encoding="utf-8")
            match = re.search(r"VmHWM:\s+(\d+) kB", status)
            found.append(1024 * int(match[1]) if match else 0)
    return max(found)


if __name__ == "__main__":
    main()
