"""What a visualizer returns: something that can be had as text, picture, page or data."""

from __future__ import annotations

import io
import json
import os
import re
import textwrap
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxlens.runtime.errors import InputError, MissingLibraryError, OutputError, PluginError
from onnxlens.runtime.files import replaced
from onnxlens.runtime.process_wide import ProcessWide

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.transforms import BboxBase
    from rich.console import RenderableType

__all__ = ["FORMATS", "Rendering", "check_ending", "drawing"]

# What each ending of a file is made of.
FORMATS = {"txt": "text", "png": "figure", "svg": "figure", "html": "html", "json": "data"}

_PLOTS = ("matplotlib", "plotly")  # the extra `plots`
_WIDTH = 100  # of text in a file
_DPI = 150  # of a PNG
_MARGIN = 0.1  # inches around a picture
_GRID = 2**20  # places in the width and the height of a picture
_LETTERS = 18  # of a caption in an inch


@contextmanager
def _drawing() -> Iterator[None]:
    import matplotlib

    from onnxlens.plugins.drawing.fonts import families, hint

    # The same picture is the same file: without the time, and with names that are not drawn by lot.
    settings: dict[Any, Any] = {"svg.hashsalt": "onnxlens", "svg.fonttype": "path", "text.usetex": False}
    with (
        matplotlib.rc_context({**settings, "font.family": families()}),
        warnings.catch_warnings(record=True) as said,
    ):
        warnings.simplefilter("always")
        yield
    hint(said)


drawing = ProcessWide(_drawing)  # matplotlib's settings and the warnings, while a picture is drawn


class Rendering:
    """The base of renderings: override the formats that yours has; others raise an error that lists them.

    Attributes:
        caption: which model, prompt and options it is of, below pictures and pages; `lens.view` writes it.
    """

    caption: str = ""

    @property
    def formats(self) -> tuple[str, ...]:
        """The endings of files that it can be saved as: some of `txt`, `png`, `svg`, `html`, `json`."""
        return tuple(
            ending
            for ending, method in FORMATS.items()
            if getattr(type(self), method) is not getattr(Rendering, method)
        )

    def text(self) -> RenderableType:
        """For a terminal, anything that rich can print. Give tokens to `rich.text.Text`, which obeys no markup.

        Raises:
            InputError: there is no such format.
        """
        raise self._lacks("text")

    def figure(self) -> Figure:
        """For PNG and SVG, a figure of matplotlib, made with `matplotlib.figure.Figure` and `parse_math=False`.

        Raises:
            InputError: there is no such format.
        """
        raise self._lacks("figure")

    def html(self) -> str:
        """One HTML file that needs nothing else: no network, no other file. `onnxlens.plugins.page` makes the frame.

        Raises:
            InputError: there is no such format.
        """
        raise self._lacks("html")

    def data(self) -> Any:
        """What is shown, as what JSON can hold: no NaN, no arrays.

        Raises:
            InputError: there is no such format.
        """
        raise self._lacks("data")

    def frames(self) -> Iterator[RenderableType] | None:
        """For a terminal, what to show one after the other while it comes about; None where it is there at once."""
        return None

    def save(self, path: str | Path) -> Path:
        """Writes a file in the format that its ending says; one that is there is replaced once the new one is whole.

        Returns:
            The path.

        Raises:
            InputError: there is no such format.
            OutputError: the file cannot be written.
            PluginError: a method returned what it must not.
        """
        ending = check_ending(path)
        path = Path(path)
        if ending not in self.formats:
            raise self._lacks(FORMATS[ending], ending)
        content = self.encoded(ending)  # before anything is written
        with replaced(path) as scratch:
            scratch.write_bytes(content)
        return path

    def encoded(self, ending: str) -> bytes:
        """What a file of that ending holds.

        Raises:
            InputError: there is no such format, or it needs a library that is not installed.
            PluginError: a method returned what it must not.
        """
        if ending not in self.formats:
            raise self._lacks(FORMATS.get(ending, ending), ending)
        try:
            return self._encoded(ending)
        except ModuleNotFoundError as error:
            library = (error.name or str(error)).partition(".")[0]
            is_extra = library in _PLOTS
            install = ": pip install 'onnxlens[plots]', for pictures and pages" if is_extra else ""
            needy = {"figure", "html"} if is_extra else {FORMATS[ending]}  # who lacks one of the two lacks the other
            others = [one for one in self.formats if FORMATS[one] not in needy]
            without = f" Without it there is {_listed(others)}." if others else ""
            raise MissingLibraryError(
                f"A .{ending} of this needs {library}, which is not installed{install}.{without}"
            ) from error

    def renderable(self) -> RenderableType:
        """What `text()` returns, if rich can print it.

        Raises:
            InputError: there is no such format.
            PluginError: it returned something else.
        """
        from rich.protocol import is_renderable

        value = self.text()
        if not is_renderable(value):
            raise self._wrong("text", "something that rich can print", value)
        return value

    def json(self) -> str:
        """`data()` as JSON.

        Raises:
            InputError: there is no such format.
            PluginError: `data` returned what JSON cannot hold.
        """
        try:
            text = json.dumps(self.data(), ensure_ascii=False, allow_nan=False, indent=1)
            text.encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise PluginError(f"{type(self).__name__}.data() returned what JSON cannot hold: {error}.") from error
        return text

    def __repr__(self) -> str:
        return f"{type(self).__name__}({_listed(self.formats)})"

    def __str__(self) -> str:
        """The text, without colours, where there is one: for `print`."""
        return self.encoded("txt").decode().rstrip("\n") if "txt" in self.formats else repr(self)

    def _repr_html_(self) -> str:
        """For a notebook: the page in a frame of its own, so that neither disturbs the other."""
        from onnxlens.plugins.drawing.notebook import as_html

        return as_html(self)

    def _repr_mimebundle_(
        self, include: Collection[str] | None = None, exclude: Collection[str] | None = None
    ) -> dict[str, str]:
        """For Jupyter: the same, with a picture and the text for whatever shows no pages."""
        from onnxlens.plugins.drawing.notebook import mimebundle

        return mimebundle(self, include, exclude)

    def _encoded(self, ending: str) -> bytes:
        if ending == "txt":
            return _plain(self.renderable()).encode()
        if ending == "html":
            return self._page().encode("utf-8", "backslashreplace")  # a lone surrogate is no reason to fail
        if ending == "json":
            return f"{self.json()}\n".encode()
        return self._drawn(ending)

    def _page(self) -> str:
        value = self.html()
        if not isinstance(value, str):
            raise self._wrong("html", "text", value)
        if not self.caption:
            return value
        body, end, rest = value.rpartition("</body>")
        return f"{body}<footer>{escape(self.caption)}</footer>\n{end}{rest}" if end else value

    def _drawn(self, ending: str) -> bytes:
        from matplotlib.figure import Figure

        file = io.BytesIO()
        with drawing():
            figure = self.figure()
            if not isinstance(figure, Figure):
                raise self._wrong("figure", "a figure of matplotlib", figure)
            metadata = {"Date": None} if ending == "svg" else {"Software": None}
            # What bbox_inches="tight" does takes one more drawing of everything.
            figure.set_dpi(_DPI)  # texts are not equally wide at all
            if (engine := figure.get_layout_engine()) is not None:
                engine.execute(figure)
                figure.set_layout_engine(None)
                _snap(figure)
            self._write_caption(figure)
            box = figure.get_tightbbox().padded(_MARGIN)
            figure.savefig(file, format=ending, dpi=_DPI, bbox_inches=box, metadata=metadata)
        return _named_anew(file.getvalue()) if ending == "svg" else file.getvalue()

    def _write_caption(self, figure: Figure) -> None:
        """Writes the caption below a figure that is laid out."""
        wide, high = figure.get_size_inches()
        text = textwrap.fill(self.caption, int(wide * _LETTERS), break_on_hyphens=False)
        how: Any = {"fontsize": 7, "color": "#555555", "va": "top", "parse_math": False}
        figure.text(0.0, -_MARGIN / high, text, **how)

    def _lacks(self, method: str, ending: str = "") -> InputError:
        wanted = f".{ending}" if ending else f"{method}()"
        has = f"it can be had as {_listed(self.formats)}" if self.formats else "it has no format at all"
        return InputError(f"{type(self).__name__} has no {wanted}; {has}.")

    def _wrong(self, method: str, expected: str, value: object) -> PluginError:
        return PluginError(
            f"{type(self).__name__}.{method}() must return {expected}, and returned {type(value).__name__}."
        )


def check_ending(path: str | Path) -> str:
    """The ending of a file that a rendering can be saved as, without the dot.

    Raises:
        OutputError: it says no format.
    """
    if not isinstance(path, str | os.PathLike):
        raise OutputError(f"A file is named by its path, not {path!r:.100}.")
    ending = Path(path).suffix.lower().removeprefix(".")
    if ending not in FORMATS:
        shown = f"the ending {ending!r}" if ending else "no ending"
        raise OutputError(
            f"Cannot write {str(path) or repr('')}: a rendering is saved as {_listed(FORMATS)}, and it has {shown}."
        )
    return ending


def _listed(endings: Any) -> str:
    names = [f".{ending}" for ending in endings]
    return " or ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names) or "none"


def _named_anew(svg: bytes) -> bytes:
    """The same with clipping paths named in their order: matplotlib names them by where they happen to be in memory."""
    names: dict[bytes, bytes] = {}

    def name(found: re.Match[bytes]) -> bytes:
        return found[1] + names.setdefault(found[2], b"clip%d" % len(names))

    return re.sub(rb'(id="|url\(#)(p[0-9a-f]{10})\b', name, svg)


def _snap(figure: Figure) -> None:
    """Puts what was laid out on a fine grid: the solver goes by addresses in memory, which changes the last bits."""
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure
    from matplotlib.transforms import Bbox

    def snapped(box: BboxBase) -> Bbox:
        return Bbox((box.get_points() * _GRID).round() / _GRID)

    for part in figure.findobj(SubFigure):
        part.bbox_relative.set(snapped(part.bbox_relative))
    for axes in figure.findobj(Axes):
        axes.set_position(snapped(axes.get_position(original=True)), which="original")


def _plain(renderable: RenderableType) -> str:
    """What rich would print, without colours, and without what a terminal would obey."""
    from rich.console import Console

    file = io.StringIO()
    # In a notebook, rich would by itself print into the cell instead of the file.
    options: dict[str, Any] = {"color_system": None, "highlight": False, "markup": False, "emoji": False}
    Console(file=file, width=_WIDTH, force_jupyter=False, **options).print(renderable, crop=False)
    text = re.sub(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]", lambda found: repr(found[0])[1:-1], file.getvalue())
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"
