"""The conformance kit: checks that samplers and visualizers keep to the contract.

    from onnxlens.plugins.testing import check_sampler, check_visualizer

    check_sampler(TopK, k=3)
    check_visualizer(Tokens, colour="norm")

Each raises an AssertionError that says what was wrong, and with which input.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
import re
import string
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any, NoReturn
from xml.etree import ElementTree

import numpy as np

from onnxlens.plugins._drawing.rendering import FORMATS, Rendering
from onnxlens.plugins._options import Options, json_schema, option_names
from onnxlens.plugins._sampling.sampler import Context, Sampler
from onnxlens.plugins._viewing.reading import needed, read
from onnxlens.plugins._viewing.visualizer import View, Visualizer
from onnxlens.runtime._bundle.bundle import Bundle
from onnxlens.runtime._bundle.description import ModelDescription
from onnxlens.runtime._running.runner import Runner
from onnxlens.runtime._text.tokenizer import Tokenizer
from onnxlens.runtime.errors import InputError, MissingLibraryError, OnnxLensError

__all__ = ["HOSTILE", "check_sampler", "check_visualizer", "context_of", "hostile"]

_INF = np.inf
_MARK = "onnxlens-hostile"
_MANY = 10  # tokens, of which at least one must stay
_SEEN = "zqxj"  # letters that no rendering has by itself
_USUAL = ("ordinary logits", "one row", "nine rows", "a large vocabulary")  # the first token must still be accepted

# Tokens with a special meaning in a browser, in rich, in matplotlib or in a terminal.
HOSTILE = (
    f"' {_MARK}='x",
    f'" {_MARK}="x',
    f"<{_MARK}>",
    f"\"><{_MARK} onload='{_MARK}()'>",
    f"</script><{_MARK}>",
    f"</style></title></textarea><{_MARK}>",
    f"--><{_MARK}><!--",
    f"]]><{_MARK}>",
    f"&lt;{_MARK}&gt;&#60;{_MARK}&#62;",
    f"[bold]{_SEEN}[/bold]",
    "[/]",
    "[link=http://x]",
    "$\\frac{1}{0}$",
    "$",
    "\\",
    "${x}{{y}}%s",
    "\x1b[31m\x1b]0;title\x07",
    "\x00\x08\r\n\t",
    "\x9b31m",
    "\u202e\u2066",
    "\ufffd",
    " " * 40,
    "",
    "w" * 300,
    "👩‍👩‍👧‍👦é",
)


def context_of(logits: np.ndarray, *, seed: int = 0, step: int = 3) -> Context:
    """A context for logits [B, V]: rows of different tokens, of which the last `step` were generated.

    Its tokenizer has V tokens: single characters, beginning with the space, a to z, 0 to 9 and `"`; then pairs of
    characters; and as the last one that which ends a text.
    """
    rows, vocabulary = logits.shape
    ids = np.arange(rows * (step + 4), dtype=np.int64).reshape(rows, step + 4) * 7 % vocabulary
    return Context(
        ids,
        step,
        np.random.default_rng(seed),
        eos_token_id=vocabulary - 1,
        max_new_tokens=step + 20,
        tokenizer=_tokenizer(vocabulary),
    )


def check_sampler(sampler: type[Sampler] | Sampler, **options: object) -> None:
    """Checks that a sampler keeps to the contract.

    A sampler may raise InputError for logits of which it could keep no token, and for a text that cannot go on. Of very
    few tokens it may keep none, which its caller reports as an error.

    Args:
        sampler: the class, or an object.
        options: options of the sampler, if it is a class.

    Raises:
        AssertionError: it does not; the text says what was wrong, and with which input.
    """
    made = _made(sampler, Sampler, options)
    name = type(made).__name__
    for label, logits in _adversarial():
        for step in (0, 3):
            _check_call(name, made, label, logits, step)
    for label, logits in _adversarial():
        for step in (0, 3):
            _check_seeded(name, made, label, logits, step)
            _check_rows(name, made, label, logits, step)
    _check_state(name, made)


def check_visualizer(
    visualizer: type[Visualizer] | Visualizer, *, model: str | Path | None = None, **options: object
) -> None:
    """Checks that a visualizer keeps to the contract.

    A visualizer may raise InputError for a text that it cannot show, but not for every text.

    Args:
        visualizer: the class, or an object.
        model: the folder of a bundle; the small model that ships if left out.
        options: options of the visualizer, if it is a class.

    Raises:
        AssertionError: it does not; the text says what was wrong, and with which input.
    """
    made = _made(visualizer, Visualizer, options)
    name = type(made).__name__
    from onnxlens._lens import Lens

    runner = Runner(Bundle(Path(str(files("onnxlens.models"))) / "tiny" if model is None else Path(model)))
    tokenizer = runner.bundle.tokenizer
    _check_hook_points(name, made, runner.bundle.description)
    words = tokenizer.encode("The cat sat on the mat, and the cat slept. ")
    most = runner.config.n_ctx
    long = (words * (most // len(words) + 1))[:most]
    lens = Lens(runner)
    ordinary = read(runner, tokenizer, made, words, lens)
    for label, view in (
        ("a sentence", ordinary),
        ("an empty text", read(runner, tokenizer, made, tokenizer.encode(""), lens)),
        ("a text as long as the model allows", read(runner, tokenizer, made, long, lens)),
    ):
        _check_drawing(name, made, label, view)
    for shift in range(0, len(HOSTILE), len(words)):
        _check_drawing(name, made, "hostile tokens", hostile(ordinary, shift), is_hostile=True)
    _check_markup(name, made, ordinary)


def hostile(view: View, shift: int = 0) -> View:
    """The same view with tokens that contain markup or control codes; see `HOSTILE`."""
    tokens = tuple(HOSTILE[(shift + position) % len(HOSTILE)] for position in range(len(view.ids)))
    return _with_tokens(view, tokens)


@functools.cache
def _tokenizer(vocabulary: int) -> Tokenizer:
    from tokenizers import Tokenizer as FastTokenizer
    from tokenizers import decoders, models, pre_tokenizers

    visible = string.ascii_lowercase + string.digits + '"' + string.ascii_uppercase + string.punctuation
    characters = list(dict.fromkeys("Ġ" + visible))  # as GPT-2's tokenizer writes the space
    pairs = [(first, second) for first in characters for second in characters]
    tokens = [*characters, *map("".join, pairs)][: vocabulary - 1]
    merges = pairs[: max(0, len(tokens) - len(characters))]
    fast = FastTokenizer(models.BPE({token: place for place, token in enumerate(tokens)}, merges))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    fast.add_special_tokens(["<|endoftext|>"])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.json"
        fast.save(str(path))
        return Tokenizer(path, d_vocab=vocabulary)


def _made(plugin: Any, base: type[Options], options: dict[str, Any]) -> Any:
    kind = plugin if isinstance(plugin, type) else type(plugin)
    if not issubclass(kind, base):
        _fail(f"{kind.__name__} does not derive from onnxlens.plugins.{base.__name__}")
    if not dataclasses.is_dataclass(kind):
        _fail(f"{kind.__name__} is not a dataclass; put @dataclass above it")
    if not (kind.__doc__ or "").strip() or (kind.__doc__ or "").startswith(f"{kind.__name__}("):
        _fail(f"{kind.__name__} has no docstring, whose first line 'onnxlens plugins' shows")
    properties = json_schema(kind).get("properties", {})
    for option in option_names(kind):
        if not properties[option].get("description"):
            _fail(f"the option {option!r} of {kind.__name__} is not documented; put an Option into its type")
    if not isinstance(plugin, type):
        if options:
            _fail("options are given to a plugin when it is made")
        return plugin
    try:
        return plugin(**options)
    except (TypeError, InputError) as error:
        _fail(f"{kind.__name__} cannot be made with the options {options}: {error}")


def _adversarial() -> Iterator[tuple[str, np.ndarray]]:
    """Logits [B, V] of every kind that models and earlier samplers can give, each with a label."""
    rng = np.random.default_rng(0)
    ordinary = rng.normal(0, 3, (3, 50)).astype(np.float32)
    yield "ordinary logits", ordinary
    yield "ordinary logits in float64", ordinary.astype(np.float64)
    yield "one row", ordinary[:1]
    yield "nine rows", rng.normal(0, 3, (9, 50)).astype(np.float32)
    yield "a large vocabulary", rng.normal(0, 3, (2, 5_000)).astype(np.float32)
    yield "equal logits", np.full((3, 50), 1.5, np.float32)
    yield "ties", np.round(ordinary)
    yield "huge logits", (ordinary * 1e30).astype(np.float32)
    yield "a vocabulary of one token", np.array([[0.5], [-2.0]], np.float32)
    yield "a vocabulary of two tokens", np.array([[0.5, 0.4], [-2.0, 1.0]], np.float32)
    yield "half of the tokens ruled out", np.where(rng.random((3, 50)) < 0.5, -_INF, ordinary).astype(np.float32)
    alone = np.full((3, 50), -_INF, np.float32)
    alone[[0, 1, 2], [0, 20, 49]] = (1.0, -3.0, 0.0)
    yield "one token that is not ruled out", alone


def _called(made: Sampler, label: str, logits: np.ndarray, context: Context) -> np.ndarray | None:
    """The sampler's result; None if it raises InputError."""
    name = type(made).__name__
    try:
        made.reset()
        found = made(logits, context)
    except InputError as error:
        if label in _USUAL and context.step == 0:
            _fail(f"{name} raises InputError for ordinary logits ({label}): {error}")
        return None
    except (Exception, SystemExit) as error:
        _fail(f"{name} failed with {type(error).__name__}: {error} ({label})")
    if not isinstance(found, np.ndarray):
        _fail(f"{name} returned {type(found).__name__} instead of an array ({label})")
    if found.shape != logits.shape:
        _fail(f"{name} returned the shape {found.shape} for logits of the shape {logits.shape} ({label})")
    return found


def _check_call(name: str, made: Sampler, label: str, logits: np.ndarray, step: int) -> None:
    context = context_of(logits, step=step)
    before, ids = logits.copy(), context.ids.copy()
    found = _called(made, label, logits, context)
    # A model may have no end-of-text token, and the length of a text may be unknown.
    _called(made, "logits of a model without an end", logits, replace(context, eos_token_id=None, max_new_tokens=None))
    if not np.array_equal(before, logits):
        _fail(f"{name} changed the logits in place ({label}); return new ones")
    if not np.array_equal(ids, context.ids):
        _fail(f"{name} changed the ids of the context ({label})")
    if found is None:
        return
    if found.dtype.kind != "f":
        _fail(f"{name} returned {found.dtype} instead of floating-point numbers ({label})")
    if np.isnan(found).any():
        _fail(f"{name} returned NaN ({label})")
    if (found == _INF).any():
        _fail(f"{name} returned infinity ({label})")
    if (revived := (found > -_INF) & (logits == -_INF)).any():
        row, token = np.argwhere(revived)[0].tolist()
        _fail(f"{name} revived the token {token} of row {row}, which was ruled out already ({label})")
    left = (found > -_INF).sum(axis=-1)
    if made.chooses and (several := left > 1).any():
        row = int(np.argmax(several))
        _fail(f"{name} declares that it chooses, but leaves {left[row]} tokens in row {row} ({label})")
    # Of logits in which tokens are ruled out, it may need exactly these.
    many = (logits > -_INF).all(axis=-1) & (logits.shape[-1] >= _MANY)
    if (empty := many & (left == 0)).any():
        row = int(np.argmax(empty))
        _fail(f"{name} left no token in row {row} ({label}); keep one, or raise InputError")


def _check_seeded(name: str, made: Sampler, label: str, logits: np.ndarray, step: int) -> None:
    first, second = (_called(made, label, logits, context_of(logits, seed=5, step=step)) for _ in range(2))
    if not _same(first, second):
        _fail(f"{name} gives other results for the same seed ({label}); draw from context.rng, and reset all state")


def _check_rows(name: str, made: Sampler, label: str, logits: np.ndarray, step: int) -> None:
    if len(logits) < 2:
        return
    context = context_of(logits, seed=5, step=step)
    state = context.rng.bit_generator.state
    whole = _called(made, label, logits, context)
    draws = context.rng.bit_generator.state != state
    others = logits.copy()
    others[1:] = np.roll(others[1:], 3, axis=-1) / 2
    ids = context.ids.copy()
    ids[1:] = np.roll(ids[1:], 1, axis=-1)
    changed = _called(made, label, others, replace(context, ids=ids, rng=np.random.default_rng(5)))
    if whole is None or changed is None:
        return
    if not _same(whole[0], changed[0]):
        _fail(f"{name} lets rows influence each other ({label})")
    if draws:
        return  # a row alone draws other numbers
    for row in range(len(logits)):
        single = _called(made, label, logits[row : row + 1], replace(context, ids=context.ids[row : row + 1]))
        if single is None or not _close(single[0], whole[row]):
            _fail(f"{name} treats row {row} differently from the same row alone ({label})")


def _check_state(name: str, made: Sampler) -> None:
    logits = np.random.default_rng(1).normal(0, 3, (6, 2, 40)).astype(np.float32)  # [steps, B, V]

    start = context_of(logits[0], step=0)

    def steps(sampler: Sampler, ids: np.ndarray, last: int, rng: np.random.Generator) -> tuple[list[Any], np.ndarray]:
        """Continues a text, [B, T], by `count` tokens."""
        results = []
        for step in range(ids.shape[1] - start.ids.shape[1], last):
            context = replace(start, ids=ids, step=step, rng=rng)
            found = sampler(logits[step], context)
            results.append(found)
            chosen = np.argmax(found, axis=-1)
            sampler.accept(chosen, context)
            ids = np.concatenate([ids, chosen[:, np.newaxis]], axis=1)  # [B, T + 1]
        return results, ids

    def equal(first: list[Any], second: list[Any]) -> bool:
        return all(_same(one, other) for one, other in zip(first, second, strict=True))

    try:
        made.reset()
        whole, _ = steps(made, start.ids, 6, np.random.default_rng(2))
        made.reset()
        if not equal(whole, steps(made, start.ids, 6, np.random.default_rng(2))[0]):
            _fail(f"{name} keeps state after reset()")
        made.reset()
        rng = np.random.default_rng(2)
        _, ids = steps(made, start.ids, 3, rng)
        twin = made.clone()
        if twin is made or type(twin) is not type(made):
            _fail(f"{name}.clone() must return another object of its class")
        kept = copy.deepcopy(rng)
        theirs, _ = steps(twin, ids, 6, rng)
        if not equal(whole[3:], theirs):
            _fail(f"{name}.clone() does not continue as the original would")
        if not equal(whole[3:], steps(made, ids, 6, kept)[0]):
            _fail(f"{name} shares state with its clone")
    except InputError as error:
        _fail(f"{name} raises InputError for ordinary logits in a text of six tokens: {error}")
    finally:
        made.reset()


def _same(first: np.ndarray | None, second: np.ndarray | None) -> bool:
    if first is None or second is None:
        return first is second
    return np.array_equal(first, second)


def _close(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether results are equal up to the rounding of sums over one row and over several."""
    with np.errstate(invalid="ignore"):
        return bool(np.isclose(first, second, rtol=1e-5, atol=1e-6).all())


def _check_hook_points(name: str, made: Visualizer, model: ModelDescription) -> None:
    try:
        first, second = needed(made, model), needed(made, model)
    except OnnxLensError as error:
        _fail(f"{name}.hook_points names a hook point that the model does not have: {error}")
    if first != second:
        _fail(f"{name}.hook_points names different hook points when it is called again")


def _check_drawing(name: str, made: Visualizer, label: str, view: View, *, is_hostile: bool = False) -> None:
    before = {key: value.copy() for key, value in view.cache.items()}
    logits = None if view.logits is None else view.logits.copy()
    ids, long = view.ids.copy(), label != "a sentence"
    try:
        rendering, again = made.draw(view), made.draw(view)
    except KeyError as error:
        _fail(f"{name}.draw failed with KeyError: {error} ({label}); hook_points must name all that is read")
    except (Exception, SystemExit) as error:
        if isinstance(error, InputError) and long and not is_hostile:
            return
        _fail(f"{name}.draw failed with {type(error).__name__}: {error} ({label})")
    if not isinstance(rendering, Rendering):
        _fail(f"{name}.draw returned {type(rendering).__name__} instead of a Rendering ({label})")
    if not rendering.formats:
        _fail(f"the rendering of {name} has no format; override text, figure, html or data")
    for ending in rendering.formats:
        try:
            content = rendering.encoded(ending)
            # Pictures take long, so they are checked once for each visualizer.
            second = again.encoded(ending) if FORMATS[ending] != "figure" or not long else content
        except MissingLibraryError:
            continue
        except OnnxLensError as error:
            _fail(f"{name} cannot be saved as .{ending} ({label}): {error}")
        except (Exception, SystemExit) as error:
            _fail(f"{name} failed to make a .{ending} with {type(error).__name__}: {error} ({label})")
        if content != second:
            _fail(f"{name} gives a different .{ending} when it draws the same again ({label})")
        _CHECKS[ending](name, label, content)
        if is_hostile and ending == "html":
            _check_inert(name, content.decode())
    if "txt" in rendering.formats:
        _check_terminal(name, label, rendering)
    for ending in set(FORMATS) - set(rendering.formats):
        _check_lacks(name, rendering, ending)
    rendering._repr_html_()
    unchanged = all(np.array_equal(value, before[key], equal_nan=True) for key, value in view.cache.items())
    same_logits = logits is None or (view.logits is not None and np.array_equal(logits, view.logits))
    if not unchanged or not same_logits or not np.array_equal(ids, view.ids):
        _fail(f"{name} changed the view that it draws ({label})")


def _check_lacks(name: str, rendering: Rendering, ending: str) -> None:
    try:
        rendering.encoded(ending)
    except InputError:
        return
    _fail(f"{name} makes a .{ending}, but does not list it among its formats")


def _check_text(name: str, label: str, content: bytes) -> None:
    if not content.strip():
        _fail(f"{name} shows an empty text ({label})")


def _check_json(name: str, label: str, content: bytes) -> None:
    json.loads(content)


def _check_png(name: str, label: str, content: bytes) -> None:
    if not content.startswith(b"\x89PNG"):
        _fail(f"{name} makes a .png that is not a PNG file ({label})")


def _check_svg(name: str, label: str, content: bytes) -> None:
    root = ElementTree.fromstring(content)
    if not root.tag.endswith("svg"):
        _fail(f"{name} makes a .svg that is not an SVG file ({label})")
    for element in root.iter():
        if element.tag.rpartition("}")[2] == "script":
            _fail(f"{name} puts a script into its .svg ({label})")


def _check_html(name: str, label: str, content: bytes) -> None:
    parser = _Parser()
    parser.feed(content.decode())
    parser.close()
    if not parser.is_document:
        _fail(f"{name} makes a .html that is not a complete page ({label}); onnxlens.plugins.page makes one")
    if parser.loads:
        _fail(f"the .html of {name} loads {parser.loads[0]!r} from elsewhere ({label}), but must work offline")


_CHECKS = {"txt": _check_text, "png": _check_png, "svg": _check_svg, "html": _check_html, "json": _check_json}


def _check_terminal(name: str, label: str, rendering: Rendering) -> None:
    """Checks that text for a terminal has no control characters, colours aside."""
    import io

    from rich.console import Console

    made = rendering.renderable()
    out = Console(file=io.StringIO(), width=80, color_system=None, highlight=False, markup=False, force_jupyter=False)
    segments = list(out.render(out.render_str(made) if isinstance(made, str) else made))
    for segment in segments:
        if segment.control or re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", segment.text):
            _fail(f"{name} lets control characters of a token reach the terminal ({label}); show repr(token)")


def _check_markup(name: str, made: Visualizer, view: View) -> None:
    """Checks that tokens in brackets are shown with them, if tokens are shown."""
    if len(view.ids) < 1:
        return
    plain = made.draw(_with_tokens(view, (_SEEN, *view.str_tokens[1:])))
    marked = made.draw(_with_tokens(view, (f"[red]{_SEEN}[/red]", *view.str_tokens[1:])))
    if "txt" in plain.formats and _SEEN in plain.encoded("txt").decode():
        text = re.sub(r"\s", "", marked.encoded("txt").decode())
        if "[red]" not in text and "[red" not in text:
            _fail(f"{name} lets rich read markup in a token; put it into rich.text.Text")


def _with_tokens(view: View, tokens: tuple[str, ...]) -> View:
    cache = copy.copy(view.cache)
    cache.str_tokens = list(tokens)
    return replace(view, str_tokens=tokens, cache=cache)


class _Parser(HTMLParser):
    """The elements and attributes of a page, and the addresses that it would load."""

    _LOADING = frozenset(
        ("src", "href", "srcset", "data", "action", "formaction", "poster", "background", "xlink:href")
    )

    def __init__(self) -> None:
        super().__init__()
        self.structure: list[str] = []  # names of elements and attributes
        self.handlers: list[str] = []  # JavaScript in attributes
        self.scripts: list[str] = []
        self.loads: list[str] = []
        self.is_document = False

    def handle_decl(self, decl: str) -> None:
        """Notices the document type."""
        self.is_document |= decl.lower() == "doctype html"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keeps the names, and addresses."""
        self.structure += [tag, *(name for name, _ in attrs)]
        self.handlers += [value or "" for name, value in attrs if name.startswith("on")]
        for name, value in attrs:
            # A link loads nothing until it is clicked.
            if tag not in ("a", "area") and name in self._LOADING and not (value or "").startswith(("#", "data:")):
                self.loads.append(str(value))
            if name == "style":
                self._style(value or "")

    def handle_data(self, data: str) -> None:
        """Looks into styles, and keeps scripts."""
        if self.cdata_elem == "style":
            self._style(data)
        elif self.cdata_elem == "script":
            self.scripts.append(data)

    def _style(self, text: str) -> None:
        self.loads += re.findall(r"@import\s+[^;]+|url\(\s*['\"]?(?!data:|#)[^)]*\)", text)


def _check_inert(name: str, page: str) -> None:
    """Checks that no token becomes a part of a page's markup or scripts."""
    parser = _Parser()
    parser.feed(page)
    parser.close()
    if any(_MARK in one for one in parser.structure):
        _fail(f"{name} lets a token become a part of its HTML; escape it with html.escape")
    if any(_MARK in one for one in parser.handlers) or any(HOSTILE[1] in one for one in parser.scripts):
        _fail(f"{name} lets a token become a part of its JavaScript; put data there as JSON, and into no attribute")


def _fail(sentence: str) -> NoReturn:
    raise AssertionError(f"{sentence}.")
