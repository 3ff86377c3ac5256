"""The conformance kit: the built-ins pass it, and each way to break the contract is caught, by a sentence."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from typing import Annotated

import numpy as np
import pytest
from plugin_options import SAMPLERS

from onnxlens.plugins import Context, Option, Rendering, Sampler, Visualizer, page
from onnxlens.plugins._registry import Registry
from onnxlens.plugins.samplers.builtin import Greedy, TopK
from onnxlens.plugins.testing import HOSTILE, check_sampler, check_visualizer
from onnxlens.plugins.visualizers.tokens import Tokens
from onnxlens.runtime.errors import InputError

VISUALIZERS = Registry(find=False).visualizers


# What each built-in sampler is checked with; those that are not here have no option that must be given.
@pytest.mark.parametrize("name", Registry(find=False).samplers)
def test_built_in_samplers_pass(name):
    check_sampler(Registry(find=False).samplers[name].plugin, **SAMPLERS.get(name, {}))


def test_options_that_are_wrong_or_missing():
    with pytest.raises(AssertionError, match=r"TopK cannot be made with the options {'k': 0}: TopK: k must be"):
        check_sampler(TopK, k=0)


def test_a_sampler_may_be_given_as_one():
    check_sampler(TopK(k=3))
    check_sampler(TopK, k=3)


VIEWS = {
    "attention": [{"layer": 2}, {"layer": 1, "head": 3, "values": "steps"}, {"layer": 1, "head": 3, "values": "lines"}],
    "compare": [{"of": "surprisal", "other_text": "The dog sat"}],
    "patching": [{"corrupted": "The dog sat on the mat, and the cat slept. "}],
    "tokens": [{}, {"colour": "norm", "layer": 1}, {"colour": "nothing"}],
}


@pytest.mark.parametrize(("name", "options"), [(name, one) for name in VISUALIZERS for one in VIEWS.get(name, [{}])])
def test_built_in_visualizers_pass(name, options):
    check_visualizer(VISUALIZERS[name].plugin, **options)


@dataclass
class Base(Sampler):
    """Leaves everything as it is."""

    def __call__(self, logits: np.ndarray, context: Context) -> np.ndarray:
        return logits


class InPlace(Base):
    def __call__(self, logits, context):
        logits *= 2
        return logits


class ChangesIds(Base):
    def __call__(self, logits, context):
        context.ids[0, 0] += 1
        return logits


class Short(Base):
    def __call__(self, logits, context):
        return logits[:, :-1]


class Listed(Base):
    def __call__(self, logits, context):
        return logits.tolist()


class Whole(Base):
    def __call__(self, logits, context):
        return np.zeros(logits.shape, int)


class Nan(Base):
    def __call__(self, logits, context):
        with np.errstate(invalid="ignore"):
            return logits - logits  # -inf less -inf


class Infinite(Base):
    def __call__(self, logits, context):
        return np.where(np.isfinite(logits), np.inf, logits)


class Revives(Base):
    def __call__(self, logits, context):
        return np.maximum(logits, -1e9)


class Empties(Base):
    def __call__(self, logits, context):
        return np.full_like(logits, -np.inf)


class Unseeded(Base):
    def __call__(self, logits, context):
        return logits + np.random.default_rng().random(logits.shape)


class Mixes(Base):
    def __call__(self, logits, context):
        finite = np.where(np.isfinite(logits), logits, 0)
        return logits - finite[-1:].sum()


class Alone(Base):
    def __call__(self, logits, context):
        return logits * len(logits)


class Remembers(Base):
    def __call__(self, logits, context):
        self.count = getattr(self, "count", 0) + 1
        return logits / self.count


class Forgets(Base):
    def __call__(self, logits, context):
        return logits / (1 + getattr(self, "count", 0))

    def accept(self, ids, context):
        self.count = getattr(self, "count", 0) + 1

    def reset(self):
        self.count = 0

    def clone(self):
        return type(self)()


class Twin(Forgets):
    def clone(self):
        return self


@dataclass
class Shared(Base):
    """Keeps its state where its clones see it."""

    _seen: list[int] = field(default_factory=list)

    def __call__(self, logits, context):
        return logits / (1 + len(self._seen))

    def accept(self, ids, context):
        self._seen.append(0)

    def reset(self):
        self._seen.clear()

    def clone(self):
        other = type(self)()
        other._seen = self._seen
        return other


class Few(Base):
    def __call__(self, logits, context):
        if len(logits) > 3:
            raise InputError("too many")
        return logits


class Fails(Base):
    def __call__(self, logits, context):
        return logits / (1 if context.eos_token_id is not None else 1 // 0)


class Undecided(Base):
    chooses = True


class Refuses(Base):
    def __call__(self, logits, context):
        raise InputError("never")


@dataclass
class Undocumented(Base):
    """Has an option that nobody explains."""

    k: int = 1


@dataclass
class Silent(Base):
    """Forgets to return."""

    def __call__(self, logits, context):
        logits - 1


@dataclass
class Exits(Base):
    """Leaves."""

    def __call__(self, logits, context):
        raise SystemExit("now")


class NoHelp(Base):
    __doc__ = None


@pytest.mark.parametrize(
    ("plugin", "expected"),
    [
        (InPlace, "InPlace changed the logits in place (ordinary logits); return new ones."),
        (ChangesIds, "ChangesIds changed the ids of the context (ordinary logits)."),
        (Short, "Short returned the shape (3, 49) for logits of the shape (3, 50) (ordinary logits)."),
        (Silent, "Silent returned NoneType instead of an array (ordinary logits)."),
        (Exits, "Exits failed with SystemExit: now (ordinary logits)."),
        (Listed, "Listed returned list instead of an array (ordinary logits)."),
        (Whole, "Whole returned int64 instead of floating-point numbers (ordinary logits)."),
        (Nan, "Nan returned NaN (half of the tokens ruled out)."),
        (Infinite, "Infinite returned infinity (ordinary logits)."),
        (Revives, "Revives revived the token "),
        (Empties, "Empties left no token in row 0 (ordinary logits); keep one, or raise InputError."),
        (Unseeded, "Unseeded gives other results for the same seed (ordinary logits); draw from context.rng, and"),
        (Mixes, "Mixes lets rows influence each other ("),
        (Alone, "Alone treats row 0 differently from the same row alone (ordinary logits)."),
        (Remembers, "Remembers gives other results for the same seed (ordinary logits); draw from context.rng, and"),
        (Forgets, "Forgets.clone() does not continue as the original would."),
        (Twin, "Twin.clone() must return another object of its class."),
        (Shared, "Shared shares state with its clone."),
        (Refuses, "Refuses raises InputError for ordinary logits (ordinary logits): never."),
        (Few, "Few raises InputError for ordinary logits (nine rows): too many."),
        (Fails, "Fails failed with ZeroDivisionError: integer division or modulo by zero (logits of a model without"),
        (Undecided, "Undecided declares that it chooses, but leaves 50 tokens in row 0 (ordinary logits)."),
        (Undocumented, "the option 'k' of Undocumented is not documented; put an Option into its type."),
        (NoHelp, "NoHelp has no docstring, whose first line 'onnxlens plugins' shows."),
        (Tokens, "Tokens does not derive from onnxlens.plugins.Sampler."),
    ],
)
def test_what_breaks_the_contract_of_samplers(plugin, expected):
    if plugin.__doc__ is None and plugin is not NoHelp:
        plugin.__doc__ = Base.__doc__
    with pytest.raises(AssertionError) as caught:
        check_sampler(plugin)
    assert str(caught.value).startswith(expected)


def test_greedy_with_a_fault_is_caught():
    class Last(Greedy):
        """Takes the last of the largest ones."""

        def __call__(self, logits, context):
            return super().__call__(logits[:, ::-1], context)[:, ::-1] + context.ids[-1, 0]

    with pytest.raises(AssertionError, match="Last lets rows influence each other"):
        check_sampler(Last)


class Shown(Rendering):
    def __init__(self, view):
        self.view = view

    def text(self):
        return "\n".join(map(repr, self.view.str_tokens))

    def html(self):
        from html import escape

        return page("shown", escape("".join(self.view.str_tokens)))


@dataclass
class Fine(Visualizer):
    """Shows tokens."""

    which: Annotated[str, Option("which rendering")] = ""

    def hook_points(self, config):
        return []

    def draw(self, view):
        return Shown(view)


def rendering(**methods):
    """A visualizer whose rendering has these methods in place of its own."""

    @dataclass
    class Faulty(Fine):
        """Shows tokens."""

        def draw(self, view):
            return type("Drawn", (Shown,), methods)(view)

    return Faulty


def joined(self):
    return "".join(self.view.str_tokens)


CASES = {
    "html": (
        rendering(html=lambda self: page("x", joined(self))),
        "Faulty lets a token become a part of its HTML; escape it with html.escape.",
    ),
    "attribute": (
        rendering(html=lambda self: page("x", f'<p title="{joined(self).replace("<", "&lt;")}">')),
        "Faulty lets a token become a part of its HTML; escape it with html.escape.",
    ),
    "no page": (
        rendering(html=lambda self: "<p>x</p>"),
        "Faulty makes a .html that is not a complete page (a sentence); onnxlens.plugins.page makes one.",
    ),
    "script from elsewhere": (
        rendering(html=lambda self: page("x", "<script src='https://example.org/x.js'></script>")),
        "the .html of Faulty loads 'https://example.org/x.js' from elsewhere (a sentence), but must work offline.",
    ),
    "style from elsewhere": (
        rendering(html=lambda self: page("x", "", style="p { background: url('https://example.org/x.png') }")),
        "the .html of Faulty loads \"url('https://example.org/x.png')\" from elsewhere (a sentence), but",
    ),
    "script": (
        rendering(html=lambda self: page("x", "", script=f'const text = "{joined(self).replace("<", "")}";')),
        "Faulty lets a token become a part of its JavaScript; put data there as JSON, and into no attribute.",
    ),
    "handler": (
        rendering(html=lambda self: page("x", f'<p onclick="show({escape(repr(joined(self)))})">x</p>')),
        "Faulty lets a token become a part of its JavaScript; put data there as JSON, and into no attribute.",
    ),
    "failing": (
        rendering(data=lambda self: 1 / 0),
        "Faulty failed to make a .json with ZeroDivisionError: division by zero (a sentence).",
    ),
    "control characters": (
        rendering(text=joined),
        "Faulty lets control characters of a token reach the terminal (hostile tokens); show repr(token).",
    ),
    "empty text": (rendering(text=lambda self: ""), "Faulty shows an empty text (a sentence)."),
    "no text": (
        rendering(text=lambda self: 3),
        "Faulty cannot be saved as .txt (a sentence): Drawn.text() must return something that rich can print, and",
    ),
    "no json": (
        rendering(data=lambda self: self.view.ids),
        "Faulty cannot be saved as .json (a sentence): Drawn.data() returned something that JSON cannot hold: ",
    ),
    "by chance": (
        rendering(data=lambda self: np.random.default_rng().random()),
        "Faulty gives a different .json when it draws the same again (a sentence).",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_breaks_the_contract_of_renderings(case):
    plugin, expected = CASES[case]
    with pytest.raises(AssertionError) as caught:
        check_visualizer(plugin)
    assert str(caught.value).startswith(expected)


class Obeys(Shown):
    def text(self):
        from rich.text import Text

        safe = [token.replace("[/]", "").replace("\\", "") for token in self.view.str_tokens]
        return Text.from_markup(" ".join(repr(token) for token in safe if "link" not in token))


@dataclass
class Markup(Fine):
    """Lets rich obey what is in a token."""

    def draw(self, view):
        return Obeys(view)


@dataclass
class Undeclared(Fine):
    """Uses what it did not name."""

    def draw(self, view):
        return view.cache["pattern", 0]


@dataclass
class Changes(Fine):
    """Changes what it was given."""

    def hook_points(self, config):
        return ["hook_embed"]

    def draw(self, view):
        view.cache["hook_embed"][...] += 1
        return Shown(view)


@dataclass
class Unknown(Fine):
    """Names what does not exist."""

    def hook_points(self, config):
        return ["blocks.77.attn.hook_q"]


@dataclass
class Nothing(Fine):
    """Draws nothing."""

    def draw(self, view):
        return None


@dataclass
class Formless(Fine):
    """Draws what has no format."""

    def draw(self, view):
        return Rendering()


@pytest.mark.parametrize(
    ("plugin", "expected"),
    [
        (Markup, "Markup lets rich read markup in a token; put it into rich.text.Text."),
        (Undeclared, "Undeclared.draw failed with KeyError: 'blocks.0.attn.hook_pattern' was not read"),
        (Changes, "Changes changed the view that it draws (a sentence)."),
        (
            Unknown,
            (
                "Unknown.hook_points names a hook point that the model does not have: Unknown hook point "
                "'blocks.77.attn.hook_q'"
            ),
        ),
        (Nothing, "Nothing.draw returned NoneType instead of a Rendering (a sentence)."),
        (Formless, "the rendering of Formless has no format; override text, figure, html or data."),
        (Greedy, "Greedy does not derive from onnxlens.plugins.Visualizer."),
    ],
)
def test_what_breaks_the_contract_of_visualizers(plugin, expected):
    with pytest.raises(AssertionError) as caught:
        check_visualizer(plugin)
    assert str(caught.value).startswith(expected)


def test_a_visualizer_that_keeps_to_it_passes():
    check_visualizer(Fine)


def test_the_hostile_tokens_are_hostile():
    assert any("<script" in token or "</script" in token for token in HOSTILE)
    assert any("\x1b" in token for token in HOSTILE)
