"""Charts: labels, units and numbers are what they were given, in every format, whatever the labels say."""

from __future__ import annotations

import io
import json
import math

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import SubFigure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.transforms import Bbox
from rich.console import Console

from onnxlens.plugins.charts import Bars, ColouredText, Heatmap, Lines, Links, Stack, Table
from onnxlens.plugins.charts.pooled import pooled
from onnxlens.runtime.errors import InputError

NASTY = ["<b>x</b>", "[bold]y[/bold]", "$\\frac{1}{0}$", "\x1b[31m\n"]
VALUES = np.array([[1.0, -2.0, np.nan, 0.25], [0.5, 0.0, 3.0, -np.inf]])


def heatmap(values=VALUES, **options) -> Heatmap:
    given = {"unit": "nats", "row_axis": "row", "column_axis": "column", **options}
    return Heatmap("a map", values, ["one", "two"], NASTY, **given)


CHARTS = {
    "heatmap": heatmap,
    "notes": lambda: heatmap(notes=[NASTY, NASTY]),
    "bars": lambda: Bars("some bars", [(name, value) for name, value in zip(NASTY, (3, -1, 0, 2), strict=True)],
                         unit="nats", axis="name", notes={NASTY[0]: NASTY[1]}, marked=[NASTY[2]]),
    "waterfall": lambda: Bars("a fall", {"a": [("x", 1.0), ("y", -2.0)], "b": []}, unit="nats", axis="name",
                              cumulative=True),
    "lines": lambda: Lines("some lines", {"a": [1, np.nan, 3, 4], NASTY[0]: [0, 0, 0, 0]}, NASTY, unit="nats",
                           axis="place", level=(2.0, "a level")),
    "links": lambda: Links("links", np.eye(4), NASTY, NASTY, unit="share", row_axis="from", column_axis="to"),
    "table": lambda: Table("a table", ["a", "b"], [[NASTY[0], 1.5], [NASTY[3], None]]),
    "coloured": lambda: ColouredText("a text", NASTY, [1.0, np.nan, -2.0, 0.0], unit="nats",
                                     details={"rank": [1, None, 2, 3], "other": NASTY}),
}  # fmt: skip


@pytest.mark.parametrize("name", CHARTS)
def test_every_format_of_every_chart(name):
    chart = CHARTS[name]()
    page = chart.encoded("html").decode()
    assert "<b>x</b>" not in page
    assert "\\u003cb\\u003ex" not in page  # nor as a label that plotly would read as HTML
    assert "\x1b" not in page
    text = chart.encoded("txt").decode()
    assert chart.title in text
    assert "\x1b" not in text
    assert chart.encoded("png").startswith(b"\x89PNG")
    json.loads(chart.encoded("json"))
    stack = Stack("together", [chart, CHARTS["bars"]()])
    for ending in ("html", "txt", "png", "svg", "json"):
        assert stack.encoded(ending)


def test_the_last_bits_of_a_layout_change_no_file(monkeypatch):
    """The solver's sums go by addresses in memory, so that one drawing's layout is not quite the next one's."""
    rng, execute = np.random.default_rng(0), ConstrainedLayoutEngine.execute

    def nudged(engine, figure):
        execute(engine, figure)
        for axes in figure.findobj(Axes):
            axes.set_position(about(axes.get_position(original=True)), which="original")
        for part in figure.findobj(SubFigure):
            part.bbox_relative.set(about(part.bbox_relative))

    def about(box):
        return Bbox(box.get_points().round(3) + rng.normal(0, 1e-9, (2, 2)))

    monkeypatch.setattr(ConstrainedLayoutEngine, "execute", nudged)
    stack = Stack("together", [heatmap(squares=True), CHARTS["bars"]()])
    assert stack.encoded("svg") == stack.encoded("svg")


def test_a_map_shows_its_numbers_and_says_what_they_are():
    chart = heatmap()
    assert chart.limits == (-3.0, 3.0)  # about zero, since there are both
    assert heatmap(values=np.abs(np.nan_to_num(VALUES, neginf=0))).limits == (0.0, 3.0)
    axes, bar = chart.figure().axes
    np.testing.assert_array_equal(np.ma.getdata(axes.images[0].get_array()), VALUES)
    assert axes.get_xlabel() == "column"
    assert axes.get_ylabel() == "row"
    assert bar.get_ylabel() == "nats"
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["one", "two"]
    figure = chart.part()
    np.testing.assert_array_equal(figure.data[0].z, VALUES.astype(np.float32))
    assert chart.data()["values"][""] == [[1.0, -2.0, None, 0.25], [0.5, 0.0, 3.0, None]]


def test_the_matrices_of_a_map_are_picked_in_a_list():
    figure = heatmap(values={"a": VALUES, "<b>": 2 * VALUES}).part()
    assert [trace.visible for trace in figure.data] == [True, False]
    (menu,) = figure.layout.updatemenus
    assert [(one.label, one.args) for one in menu.buttons] == [
        ("a", ("visible", (True, False))),
        ("&lt;b&gt;", ("visible", (False, True))),
    ]


def test_a_narrow_map_is_a_table_and_a_wide_one_names_the_strongest():
    assert heatmap().encoded("txt").decode().splitlines()[4].split() == ["one", "+1", "-2", "+0.25"]
    wide = Heatmap("wide", np.arange(40.0)[np.newaxis], ["r"], [f"c{n}" for n in range(40)], unit="u", row_axis="row",
                   column_axis="column")  # fmt: skip
    assert wide.encoded("txt").decode().splitlines()[4].split()[:4] == ["r", "c39", "39", "c38"]


def test_a_text_of_many_tokens_is_shown_in_part_and_says_so():
    count = 30_000
    long = ColouredText("long", ["a", " b", "\x1b[31m"] * (count // 3), np.ones(count), unit="nats")
    assert f"and {count - 10_000:,} more, which .html and .json have" in long.encoded("txt").decode()
    figure = long.figure()
    assert figure.axes[0].texts[0].get_text() == f"and {count - 1_200:,} more, which .html and .json have"
    assert long.encoded("png")
    assert len(long.data()["tokens"]) == count
    assert long.html().count("<li>") == count


def test_a_page_that_no_browser_could_show_is_an_error():
    labels = [str(place) for place in range(1001)]
    large = Heatmap(
        "large",
        dict.fromkeys(map(str, range(10)), np.zeros((1001, 1001), np.float32)),
        labels,
        labels,
        unit="nats",
        row_axis="row",
        column_axis="column",
    )
    with pytest.raises(InputError, match=r"A page of 10 maps of 1,001 times 1,001 would hold 10,020,010 numbers"):
        large.html()


def test_bars_of_a_waterfall_begin_where_the_one_before_ended():
    chart = Bars("a fall", [("x", 1.0), ("y", -2.0), ("z", 4.0)], unit="nats", axis="name", cumulative=True)
    bars = chart.figure().axes[0].patches
    assert [(bar.get_x(), bar.get_width()) for bar in bars] == [(0, 1), (1, -2), (-1, 4)]
    assert list(chart.part().data[0].base) == [0, 1, -1]


def test_lines_are_the_numbers():
    chart = CHARTS["lines"]()
    line = chart.figure().axes[0].lines[0]
    np.testing.assert_array_equal(line.get_ydata(), [1, np.nan, 3, 4])
    assert chart.data()["lines"]["a"] == [1, None, 3, 4]
    legend = Lines("two", {"_a": [1.0], "b": [2.0]}, ["x"], unit="nats", axis="place").figure().axes[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["_a", "b"]


def test_texts_besides_labels_are_inert_too():
    nasty = "[/x]\x1b[31m"
    for chart in (
        Heatmap(nasty, VALUES, ["a", "b"], NASTY, unit=nasty, row_axis=nasty, column_axis=nasty),
        Bars(nasty, [("a", math.nan), ("b", math.inf), ("c", 2.0)], unit=nasty, axis=nasty),
        Lines(nasty, {"a": [1.0]}, ["x"], unit=nasty, axis=nasty),
        Table(nasty, [nasty], [[math.nan]]),
        ColouredText(nasty, ["a"], [1.0], unit=nasty, details={nasty: [1]}),
    ):
        file = io.StringIO()
        Console(file=file, width=200, color_system=None).print(Stack(nasty, [chart]).text())
        assert "\x1b" not in file.getvalue()
        assert "[/x]" in file.getvalue()
        json.loads(chart.encoded("json"))


def test_a_peak_of_a_long_line_is_seen():
    line = np.zeros(1000)
    line[501] = 9
    assert "█" in Lines("l", {"a": line}, list(map(str, range(1000))), unit="u", axis="a").encoded("txt").decode()


def test_rows_that_are_left_out_are_said_to_be():
    tall = Heatmap(
        "m", np.ones((100, 2)), [str(n) for n in range(100)], ["a", "b"], unit="u", row_axis="r", column_axis="c"
    )
    assert "one row in 3 of 100, and the last; a file has all" in tall.encoded("txt").decode()


def test_differences():
    assert heatmap().minus(heatmap(values=VALUES / 2)).data()["values"][""][0] == [0.5, -1.0, None, 0.125]
    assert heatmap().minus(CHARTS["lines"]()) is None
    assert heatmap().minus(heatmap(values={"other": VALUES})) is None
    bars = Bars("b", [("x", 1.0), ("y", 2.0)], unit="u", axis="a")
    assert bars.minus(Bars("b", [("y", 0.5), ("x", 9.0)], unit="u", axis="a")).lists == {"": [("x", -8.0), ("y", 1.5)]}
    assert bars.minus(Bars("b", [("y", 0.5), ("z", 9.0)], unit="u", axis="a")) is None  # what of x and z?
    falls = [Bars("b", one, unit="u", axis="a", cumulative=True) for one in ([("x", 1.0)], [("x", 0.5), ("y", 2.0)])]
    assert falls[0].minus(falls[1]).lists == {"": [("x", 0.5), ("y", -2.0)]}  # what a sum lacks is 0
    lines = CHARTS["lines"]()
    twice = Lines("l", {name: 2 * line for name, line in lines.lines.items()}, NASTY, unit="nats", axis="place")
    assert twice.minus(lines).data()["lines"]["a"] == [1, None, 3, 4]
    assert Lines("l", lines.lines, NASTY, unit="bits", axis="place").minus(lines) is None
    same = Bars("b", [("x", 1.0), ("x", 5.0)], unit="u", axis="a")
    assert same.minus(same).lists == {"": [("x", 0.0), ("x", 0.0)]}
    assert heatmap(unit="bits").minus(heatmap()) is None
    tokens = [["a", "b", "c", "d"], ["a", "b", "x", "d"]]
    one, two = (heatmap(subjects={"": [subjects, subjects]}) for subjects in tokens)
    np.testing.assert_array_equal(
        np.isnan(one.minus(two).panels[""]), [[False, False, True, False], [False, False, True, True]]
    )
    text = CHARTS["coloured"]()
    assert text.minus(text).data()["tokens"][0]["value"] == 0
    assert text.minus(ColouredText("t", ["a"], [1.0], unit="nats")) is None
    first, second = (ColouredText("t", ["a", one], [3.0, 4.0], unit="nats", of_tokens=True) for one in "bc")
    np.testing.assert_array_equal(first.minus(second).values, [0, np.nan])
    assert CHARTS["table"]().minus(CHARTS["table"]()) is None


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: heatmap(values=VALUES.T), r"the matrix '' has shape \(4, 2\), not \(2, 4\)"),
        (lambda: Lines("l", {"a": [1]}, ["x", "y"], unit="u", axis="a"), r"the line 'a' has shape \(1,\), not \(2,\)"),
        (lambda: heatmap(notes=[NASTY]), "the notes of '' are not 2 rows of 4 texts"),
        (lambda: heatmap(notes={"x": [NASTY, NASTY]}), "the notes of 'x' are not 2 rows of 4 texts"),
        (lambda: heatmap(values={}), "a map needs a matrix with a row and a column at least"),
        (lambda: Table("t", ["a", "b"], [["x", 1], ["y"]]), "row 1 has 1 cells for 2 headings"),
        (lambda: Stack("s", []), "a stack needs a chart at least"),
        (lambda: ColouredText("t", ["a"], [1, 2], unit="u"), "'u' has 2 entries for 1 tokens"),
        (lambda: ColouredText("t", ["a"], [1], unit="u", details={"d": []}), "'d' has 0 entries for 1 tokens"),
    ],
)
def test_what_does_not_fit_is_an_error(make, expected):
    with pytest.raises(ValueError, match=expected):
        make()


def test_the_colours_of_a_difference_end_where_those_of_the_two_do():
    """A difference is as dark as a number of its size would be."""
    shares = heatmap(values=np.full((2, 4), 0.5), limits=(0.0, 1.0))
    assert shares.minus(shares).limits == (-1.0, 1.0)
    small = heatmap().minus(heatmap(values=VALUES * 1.001))
    assert small.limits == pytest.approx((-3.003, 3.003))
    assert "larger in the second" in small.encoded("txt").decode()


def test_what_shares_a_pixel_is_pooled():
    values = np.array([[0.0, 3.0, -5.0, 1.0, np.nan, np.nan], [0.0, 0.0, 0.0, 0.0, np.nan, -1.0]])
    np.testing.assert_array_equal(pooled(values, 9, 9), values)
    np.testing.assert_array_equal(pooled(values, 2, 3), [[3, -5, np.nan], [0, 0, -1]])
    np.testing.assert_array_equal(pooled(values, 1, 2), [[-5, 1]])
    many = np.random.default_rng(0).normal(size=(100, 1000))
    assert np.abs(pooled(many, 7, 13)).max() == np.abs(many).max()


@pytest.mark.parametrize("dpi", [50, 150])
def test_no_cell_of_a_large_map_is_lost(dpi):
    """A head that looks at the token before is a line, and one neuron of thousands is there, at any resolution."""
    count = 2_400
    labels = list(map(str, range(count)))
    how = {"unit": "share", "row_axis": "row", "column_axis": "column", "limits": (0.0, 1.0)}
    line = Heatmap("m", np.eye(count, k=-1), labels, labels, squares=True, **how)
    figure = line.figure()
    assert "cells that share a pixel show the number furthest from 0" in figure.get_suptitle().replace("\n", " ")
    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(dpi)
    canvas.draw()
    box = figure.axes[0].images[0].get_window_extent()
    pixels = np.asarray(canvas.buffer_rgba())[::-1, :, :3]  # from below, as the box counts
    inside = pixels[int(box.y0) + 3 : int(box.y1) - 3, int(box.x0) + 3 : int(box.x1) - 3].sum(-1)
    assert all((inside.min(axis=axis)[10:-10] < 350).all() for axis in (0, 1))
    neuron = np.zeros((1, count))
    neuron[0, 1_001] = 1.0
    wide = Heatmap("m", neuron, ["r"], labels, **how)
    canvas = FigureCanvasAgg(figure := wide.figure())
    figure.set_dpi(dpi)
    canvas.draw()
    box = figure.axes[0].images[0].get_window_extent()
    pixels = np.asarray(canvas.buffer_rgba())[::-1, :, :3]
    assert pixels[int(box.y0) + 3 : int(box.y1) - 3, int(box.x0) + 3 : int(box.x1) - 3].sum(-1).min() < 350
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), neuron)  # which has all of them still


def test_small_maps_have_their_numbers_and_larger_ones_their_signs():
    def texts(chart: Heatmap) -> list[str]:
        return [text.get_text() for text in chart.figure().axes[0].texts]

    assert texts(heatmap()) == ["+1.00", "-2.00", "+0.25", "+0.50", "0", "+3.00"]
    assert heatmap().part().data[0].text[0][1] == "-2.00"
    places = list(map(str, range(30)))
    how = {"unit": "u", "row_axis": "r", "column_axis": "c"}
    larger = Heatmap("m", np.linspace(-1, 1, 30)[np.newaxis], ["row"], places, **how)
    assert texts(larger)[:2] == texts(larger)[-3:-1][::-1] == ["-", "-"] or texts(larger)[0] == "-"
    assert texts(larger)[-1] == "+" and "" in texts(larger)
    assert texts(Heatmap("m", np.ones((1, 30)), ["row"], places, **how)) == []  # nothing has a sign


def test_a_sign_has_one_colour_and_its_meaning_is_written():
    signs = ("supports x", "opposes x")
    values = np.full((1, 2), 2.0)
    how = {"unit": "logit", "signs": signs}
    grid = Heatmap("m", values, ["r"], ["a", "b"], row_axis="r", column_axis="c", **how)
    bars = Bars("b", [("a", 2.0), ("b", 1.0)], axis="x", **how)
    text = ColouredText("t", ["a", "b"], [2.0, 1.0], **how)
    for chart in (grid, bars, text):  # though nothing is negative
        assert chart.scale.is_signed and chart.scale.signs == signs
        said = chart.encoded("txt").decode().replace("\n", " ")
        assert "+ (red) supports x, - (blue) opposes x" in said
        assert "+2" in said
    assert grid.limits == text.limits == (-2.0, 2.0)
    assert text.captions == ["+2.00", "+1.00"]
    assert "<sub>+2.00</sub>" in text.html()
    two = Bars("b", [("a", 2.0), ("b", -1.0)], axis="x", unit="logit")
    assert [bool(bar.get_hatch()) for bar in two.figure().axes[0].patches] == [False, True]  # for who prints in grey
    full, hollow = two.part().data[0].marker.color  # in a page
    assert (full[0], len(full)) == ("#", 7)
    assert hollow.startswith("rgba(") and hollow.endswith(", 0.25)")


def test_noise_is_not_as_dark_as_an_effect():
    assert heatmap(values=VALUES * 1e-6, floor=0.1).limits == (-0.1, 0.1)
    assert heatmap(floor=0.1).limits == (-3.0, 3.0)
    assert ColouredText("t", ["a"], [1e-6], unit="u", floor=0.1).limits == (0.0, 0.1)


def test_long_titles_take_several_lines_and_leave_the_picture_its_width():
    chart = heatmap()
    widths = [one.get_size_inches()[0] for one in (chart.figure(), chart.titled("word " * 200).figure())]
    assert widths[0] == widths[1]
    title = chart.titled("word " * 200).figure().get_suptitle()
    assert 2 <= title.count("\n") <= 4
    assert title.endswith("…")
