"""Renderings, which visualizers return: text, pictures, pages and data."""

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

from onnxlens.runtime._files import replaced
from onnxlens.runtime._process_wide import ProcessWide
from onnxlens.runtime.errors import InputError, MissingLibraryError, OutputError, PluginError

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.transforms import BboxBase
    from rich.console import RenderableType

__all__ = ["FORMATS", "Rendering", "check_ending", "drawing"]

# The method that makes each kind of file.
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

    from onnxlens.plugins._drawing.fonts import families, hint

    # Equal pictures give equal files: without the time, and without random names.
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
    """The base of renderings. Override the methods of the formats that yours has; the others raise an error.

    Attributes:
        caption: the model, prompt and options, shown below pictures and pages; `lens.view` sets it.
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
        """Returns text for a terminal, anything that rich prints; tokens in `rich.text.Text`, which reads no markup.

        Raises:
            InputError: there is no such format.
        """
        raise self._lacks("text")

    def figure(self) -> Figure:
        """Returns a matplotlib figure for PNG and SVG, made with `matplotlib.figure.Figure` and `parse_math=False`.

        Raises:
            InputError: there is no such format.
        """
        raise self._lacks("figure")

    def html(self) -> str:
        """Returns one HTML file that needs no network and no other file; `onnxlens.plugins.page` makes one.

        Raises:
            InputError: there is no such format.
        """
        raise self._lacks("html")

    def data(self) -> Any:
        """Returns the data as values for JSON: no NaN, no arrays.

        Raises:
            InputError: there is no such format.
        """
        raise self._lacks("data")

    def frames(self) -> Iterator[RenderableType] | None:
        """Returns frames to show in a terminal one after the other while it is computed; None if it has no frames."""
        return None

    def save(self, path: str | Path) -> Path:
        """Writes a file in the format of its ending; an existing file is replaced once the new one is complete.

        Returns:
            The path.

        Raises:
            InputError: there is no such format.
            OutputError: the file cannot be written.
            PluginError: a method returned a wrong type.
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
        """The content of a file with this ending.

        Raises:
            InputError: there is no such format, or it needs a library that is not installed.
            PluginError: a method returned a wrong type.
        """
        if ending not in self.formats:
            raise self._lacks(FORMATS.get(ending, ending), ending)
        try:
            return self._encoded(ending)
        except ModuleNotFoundError as error:
            library = (error.name or str(error)).partition(".")[0]
            is_extra = library in _PLOTS
            install = ": pip install 'onnxlens[plots]', for pictures and pages" if is_extra else ""
            needy = {"figure", "html"} if is_extra else {FORMATS[ending]}  # both come with the extra
            others = [one for one in self.formats if FORMATS[one] not in needy]
            without = f" Without it, there is {_listed(others)}." if others else ""
            raise MissingLibraryError(
                f"A .{ending} of this needs {library}, which is not installed{install}.{without}"
            ) from error

    def renderable(self) -> RenderableType:
        """The result of `text()`, if rich can print it.

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
            PluginError: `data` returned something that JSON cannot hold.
        """
        try:
            text = json.dumps(self.data(), ensure_ascii=False, allow_nan=False, indent=1)
            text.encode()
        except (TypeError, ValueError, RecursionError) as error:
            name = type(self).__name__
            raise PluginError(f"{name}.data() returned something that JSON cannot hold: {error}.") from error
        return text

    def __repr__(self) -> str:
        return f"{type(self).__name__}({_listed(self.formats)})"

    def __str__(self) -> str:
        """The text without colours, if it has text: for `print`."""
        return self.encoded("txt").decode().rstrip("\n") if "txt" in self.formats else repr(self)

    def _repr_html_(self) -> str:
        """For a notebook: the page in a frame of its own, so that page and notebook do not affect each other."""
        from onnxlens.plugins._drawing.notebook import as_html

        return as_html(self)

    def _repr_mimebundle_(
        self, include: Collection[str] | None = None, exclude: Collection[str] | None = None
    ) -> dict[str, str]:
        """For Jupyter: the same, with a picture and the text for viewers that show no pages."""
        from onnxlens.plugins._drawing.notebook import mimebundle

        return mimebundle(self, include, exclude)

    def _encoded(self, ending: str) -> bytes:
        if ending == "txt":
            return _plain(self.renderable()).encode()
        if ending == "html":
            return self._page().encode("utf-8", "backslashreplace")  # lone surrogates are replaced
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
            # bbox_inches="tight" would draw everything once more.
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
        has = f"it has {_listed(self.formats)}" if self.formats else "it has no format at all"
        return InputError(f"{type(self).__name__} has no {wanted}; {has}.")

    def _wrong(self, method: str, expected: str, value: object) -> PluginError:
        return PluginError(
            f"{type(self).__name__}.{method}() must return {expected}, and returned {type(value).__name__}."
        )


def check_ending(path: str | Path) -> str:
    """The ending of a file that a rendering can be saved as, without the dot.

    Raises:
        OutputError: the ending belongs to no format.
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
    """The same with clipping paths numbered in order: matplotlib names them after memory addresses."""
    names: dict[bytes, bytes] = {}

    def name(found: re.Match[bytes]) -> bytes:
        return found[1] + names.setdefault(found[2], b"clip%d" % len(names))

    return re.sub(rb'(id="|url\(#)(p[0-9a-f]{10})\b', name, svg)


def _snap(figure: Figure) -> None:
    """Rounds a layout to a fine grid: the solver's last bits depend on memory addresses."""
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
    """The text that rich would print, without colours and control characters."""
    from rich.console import Console

    file = io.StringIO()
    # In a notebook, rich would print into the cell instead of the file.
    options: dict[str, Any] = {"color_system": None, "highlight": False, "markup": False, "emoji": False}
    Console(file=file, width=_WIDTH, force_jupyter=False, **options).print(renderable, crop=False)
    text = re.sub(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]", lambda found: repr(found[0])[1:-1], file.getvalue())
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"
