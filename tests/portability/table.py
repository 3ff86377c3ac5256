"""The table of docs/runtimes.md: what works in which runtime, and for which bundles."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from portability.bundles import BUNDLES
from portability.runtimes import RUNTIMES, Runtime

__all__ = ["update"]

_SECTION = re.compile(r"(<!-- portability -->\n).*?(<!-- end portability -->)", re.S)


def update(document: Path, shown: Mapping[str, Runtime], *, write: bool) -> bool:
    """Brings the table up to date; the rows of runtimes that were left out or skipped stay.

    Args:
        document: the document.
        shown: the runtimes that ran and passed, by name.
        write: write it, if it is stale.

    Returns:
        Whether it was stale.
    """
    text = document.read_text(encoding="utf-8")
    found = _SECTION.search(text)
    assert found is not None, f"{document} has no place for the table"
    rows = {line.split("|")[1].strip(): line for line in found[0].splitlines() if line.startswith("| ")}
    lines = [f"| runtime | shown | {' | '.join(BUNDLES)} |", f"| --- | --- |{' --- |' * len(BUNDLES)}"]
    for runtime in RUNTIMES:
        if runtime.name in shown:
            cells = " | ".join(", ".join(names) for names in BUNDLES.values())
            lines.append(f"| {runtime.name} | {', '.join(shown[runtime.name].checks)} | {cells} |")
        elif runtime.name in rows:
            lines.append(rows[runtime.name])
    new = _SECTION.sub(lambda match: match[1] + "\n".join(lines) + "\n" + match[2], text)
    if write and new != text:
        document.write_text(new, encoding="utf-8")
    return new != text
