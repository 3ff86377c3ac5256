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
