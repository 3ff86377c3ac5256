"""Puts measurements into a page: between a line that names the script and a line that ends them."""

from __future__ import annotations

from pathlib import Path

END = "<!-- end of measurements -->"


def start(script: str) -> str:
    """The line before the measurements of a script."""
    return f"<!-- measured by benchmarks/{script} -->"


def with_measurements(page: str, script: str, text: str) -> str:
    """A page with a text between the lines of a script.

    Raises:
        ValueError: the page has no such place.
    """
    before, found, rest = page.partition(start(script))
    _, end, after = rest.partition(END)
    if not (found and end):
        raise ValueError(f"The page has no place for measurements: it needs the lines {start(script)} and {END}.")
    return f"{before}{start(script)}\n{text}\n{END}{after}"


def publish(table: str, page: Path, script: str, *, write: bool) -> None:
    """Prints what a script measured, and puts it into a page if that was asked for.

    Raises:
        ValueError: the page has no such place.
    """
    print(table)
    if write:
        page.write_text(with_measurements(page.read_text(), script, table))
