"""Pictures look as they did when somebody last looked at them.

What differs is left in a folder that the failing test names: where the new picture is right, it takes the place of the
old one in tests/plugins/charts/pictures.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.testing.compare import compare_images

from onnxlens.plugins.charts import Bars, ColouredText, Heatmap, Lines, Links, Stack, Table

PICTURES = Path(__file__).parent / "pictures"
TOKENS = ["The", " cat", " sat", "\n", " $x$", " naïve", "<b>", " the", " cat"]
COUNT = len(TOKENS)
SIGNED = np.sin(np.arange(COUNT * COUNT, dtype=np.float64)).reshape(COUNT, COUNT)
SHARES = np.where(np.tri(COUNT) > 0, np.tri(COUNT) / np.arange(1, COUNT + 1)[:, np.newaxis], np.nan)
AXES = {"row_axis": "token", "column_axis": "attended to"}
BARS = [("one", 1.5), ("two", -0.5), ("three", 0.25)]

CHARTS = {
    "map": lambda: Heatmap("a map", SIGNED, TOKENS, TOKENS, unit="nats", **AXES),
    "thumbnails": lambda: Heatmap(
        "maps", {f"head {n}": SHARES**n for n in range(1, 6)}, TOKENS, TOKENS, unit="share", squares=True, **AXES
    ),
    "notes": lambda: Heatmap("notes", SIGNED[:3], TOKENS[:3], TOKENS, notes=[TOKENS] * 3, unit="nats", **AXES),
    "waterfall": lambda: Bars("a waterfall", BARS, unit="nats", axis="part", cumulative=True, marked=["two"]),
    "lines": lambda: Lines(
        "lines", {"a": SIGNED[0], "b": SIGNED[1]}, TOKENS, unit="nats", axis="token", level=(0.5, "half")
    ),
    "links": lambda: Links("links", SHARES, TOKENS, TOKENS, unit="share", **AXES),
    "text": lambda: ColouredText(
        "a text", TOKENS, [np.nan, *np.arange(1.0, COUNT)], unit="nats", captions=[str(n) for n in range(COUNT)]
    ),
    "stack": lambda: Stack(
        "together",
        [Bars("bars", BARS, unit="nats", axis="part"), Table("a table", ["token", "value"], [["a", 1.5], ["b", None]])],
    ),
}


@pytest.mark.parametrize("name", CHARTS)
def test_a_picture_looks_as_it_did(name, tmp_path):
    found = tmp_path / f"{name}.png"
    found.write_bytes(CHARTS[name]().encoded("png"))
    expected = PICTURES / found.name
    assert expected.is_file(), f"there is no picture to compare with; {found} is one, if it is right"
    (tmp_path / "before.png").write_bytes(expected.read_bytes())
    assert compare_images(str(tmp_path / "before.png"), str(found), tol=4) is None  # where fonts are drawn otherwise


def test_another_picture_is_noticed(tmp_path):
    changed = tmp_path / "changed.png"
    changed.write_bytes(Heatmap("a map", SIGNED[::-1], TOKENS, TOKENS, unit="nats", **AXES).encoded("png"))
    before = tmp_path / "before.png"
    before.write_bytes((PICTURES / "map.png").read_bytes())
    assert compare_images(str(before), str(changed), tol=4) is not None
