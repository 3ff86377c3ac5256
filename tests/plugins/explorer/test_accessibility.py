"""axe finds nothing to report on the page: names, roles, contrast, in each scheme, language and width."""

from __future__ import annotations

from pathlib import Path

import pytest
from explorer_page import NEEDS_PAGE

ROOT = Path(__file__).parents[3]
AXE = ROOT / "plugins" / "explorer" / "web" / "node_modules" / "axe-core" / "axe.min.js"
pytestmark = [
    *NEEDS_PAGE,
    pytest.mark.skipif(not AXE.is_file(), reason="needs axe-core, which 'make explore' fetches in a checkout"),
]
EDITS = '&edits=[{"hook":"blocks.4.attn.hook_z","operation":"zero","heads":1}]'
STATES = {
    "start": "",
    "head with edits": f"at=head:4,1{EDITS}",
    "pair": "at=head:4,1,13,1",
    "cell": "at=cell:3,4",
    "token": "at=token:1",
    "block": "at=block:2",
    "mlp": "at=mlp:4",
    "comparison": "other=When Mary and Tom went to the shop, Mary gave a drink to",
    "long text": "text=" + "the cat sat on the mat and " * 20,
}


@pytest.mark.parametrize("options", [{}, {"color_scheme": "dark"}, {"viewport": {"width": 360, "height": 780}}])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_axe_finds_nothing(visit, options, language):
    source = AXE.read_text(encoding="utf-8")
    page, _ = visit(f"lang={language}", **options)
    page.evaluate(source)
    for name, state in STATES.items():
        page.evaluate("state => { location.hash = state; }", f"{state}&lang={language}")
        page.wait_for_timeout(400)
        found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
        said = [(one["id"], one["nodes"][0]["html"], one["nodes"][0]["failureSummary"]) for one in found["violations"]]
        assert said == [], name


@pytest.mark.parametrize("options", [{}, {"color_scheme": "dark"}, {"viewport": {"width": 360, "height": 780}}])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_axe_finds_nothing_in_tools_and_tour(visit, options, language):
    source = AXE.read_text(encoding="utf-8")
    page, _ = visit(f"lang={language}", **options)
    page.evaluate(source)

    def sweep():
        page.get_by_test_id("sweep-run").click()
        page.get_by_test_id("sweep-map").wait_for()

    def look():
        page.get_by_test_id("surprisal-5").click()
        page.get_by_test_id("surprisal-expected").wait_for()

    states = {
        "tool:heads": lambda: page.get_by_test_id("heads-table-all").click(),
        "tool:sweeps": sweep,
        "tool:surprisal": look,
        "tool:gradient": lambda: page.get_by_test_id("gradient-0").wait_for(),
        "tool:costs": lambda: page.get_by_test_id("costs").wait_for(),
        "tool:views": lambda: page.get_by_test_id("visualizer").select_option("patching"),
        "tour=7": lambda: page.get_by_test_id("tour-ask").wait_for(),
        "tour=12": lambda: page.locator("[data-testid=tour-text][data-ready=true]").wait_for(),
    }
    for name, act in states.items():
        state = name if name.startswith("tour") else f"at={name}"
        page.evaluate("state => { location.hash = state; }", f"{state}&lang={language}")
        act()
        page.wait_for_timeout(300)
        found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
        said = [(one["id"], one["nodes"][0]["html"], one["nodes"][0]["failureSummary"]) for one in found["violations"]]
        assert said == [], name
