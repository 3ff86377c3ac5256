"""The last line of a run: what was not tested, and what would enable it.

A fresh clone has no Chromium and no GPU, and tests that need one are skipped. Who runs the suite should know that
without reading the list of skipped tests. The line is made from the reasons, so a reason has to say what a test needs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterable

import pytest

__all__ = ["line", "pytest_sessionfinish"]


def line(reasons: Iterable[str]) -> str:
    """One sentence from the reason of each skipped test; empty if there are none."""
    counted = Counter(" ".join(reason.removeprefix("Skipped: ").split()).rstrip(".") for reason in reasons)
    parts = [f"{count} test{'s' if count > 1 else ''} ({reason})" for reason, count in counted.most_common()]
    return f"Not tested: {', '.join(parts)}." if parts else ""


@pytest.hookimpl(wrapper=True, tryfirst=True)  # around pytest's own, which prints its summary here
def pytest_sessionfinish(session: pytest.Session) -> Generator[None, object, object]:
    """Prints the line after everything else; under xdist, in the process that collects the results."""
    result = yield
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and not hasattr(session.config, "workerinput"):
        said = line(str(report.longrepr[2]) for report in reporter.stats.get("skipped", []))
        if said:
            reporter.ensure_newline()
            reporter.write_line(said)
    return result
