"""Samplers that let a text be generated only if it fits a regular expression, a JSON schema or a grammar."""

from __future__ import annotations

import copy
import json
import re
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, NoReturn, Self

import numpy as np

from onnxlens.plugins._options import Option
from onnxlens.plugins._sampling.grammars import LONGEST, GrammarError, NoTextError, State, begin
from onnxlens.plugins._sampling.sampler import Context, Sampler
from onnxlens.runtime._text.human_text import HumanTextError, read_human_text
from onnxlens.runtime._text.tokenizer import Tokenizer
from onnxlens.runtime.errors import InputError

__all__ = ["JsonSchema", "LarkGrammar", "Regex"]

_SHOWN = 60  # characters of a pattern or text in an error


@dataclass
class _Constrained(Sampler):
    """Keeps the tokens after which the generated text, without the prompt, can still become one that fits.

    All state follows from the generated ids of the context, so rows may come in any order, and a text may be continued
    in its middle.
    """

    what: ClassVar[str]  # that the text must fit, for errors

    _tokenizer: Tokenizer | None = field(default=None, init=False, repr=False, compare=False)
    _start: State | None = field(default=None, init=False, repr=False, compare=False)
    # The states of the texts of the last step, by their generated ids.
    _states: dict[tuple[int, ...], State] = field(default_factory=dict, init=False, repr=False, compare=False)

    @abstractmethod
    def _grammar(self) -> str:
        """The grammar that the text must fit, in llguidance's notation."""

    def _named(self) -> str:
        """The name of the grammar in errors."""
        return self.what

    def __call__(self, logits: np.ndarray, context: Context) -> np.ndarray:
        """Returns the logits, -inf where a token, or the end of the text, may not come next.

        Raises:
            InputError: llguidance is not installed, or refuses; the text so far does not fit; no token is left.
        """
        start = self._begun(context)
        allowed = np.zeros(logits.shape, np.bool_)  # ids beyond the tokenizer's stay ruled out
        states: dict[tuple[int, ...], State] = {}
        ends_of = set(context.ends)
        for row, generated in enumerate(context.generated.tolist()):
            ids = tuple(generated)
            if not ends_of.isdisjoint(ids):  # a text that ended, in a batch with others that go on
                may, ends = np.zeros(0, np.bool_), True
            else:
                states[ids] = self._state(ids, start, context)
                may, ends = self._allowed(states[ids], ids, context)
            allowed[row, : len(may)] = may[: logits.shape[-1]]
            if ends:
                allowed[row, context.ends] = True
            if ends and not allowed[row].any():
                self._fail("the text is complete, and this model has no token that ends one")
        self._states = states
        left: np.ndarray = np.where(allowed, logits, logits.dtype.type(-np.inf))
        if (none := np.isneginf(left.max(axis=-1))).any():
            text = self._shown(context.generated[int(none.argmax())].tolist(), context)
            self._fail(f"all tokens that may follow {text} are ruled out already")
        return left

    def reset(self) -> None:
        """Forgets all texts."""
        self._states = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Returns a copy without shared state; the library's states do not support `copy`."""
        twin = copy.copy(self)
        twin._start = None if self._start is None else self._start.clone()
        twin._states = {ids: state.clone() for ids, state in self._states.items()}
        return twin

    def _begun(self, context: Context) -> State:
        """The state before a text, made when it is first asked for."""
        name = type(self).__name__
        if context.tokenizer is None:
            raise InputError(f"{name}: it needs a tokenizer to know the texts of tokens, and there is none.")
        if self._start is None or context.tokenizer is not self._tokenizer:
            try:
                self._start = begin(self._grammar(), context.tokenizer)
            except GrammarError as error:
                self._fail(f"{self._named()} cannot be used: {error}", error)
            self._tokenizer, self._states = context.tokenizer, {}
        return self._start

    def _state(self, ids: tuple[int, ...], start: State, context: Context) -> State:
        """The state of a text: one step from the last state, or else from the beginning."""
        known = self._states.get(ids)
        if known is None and ids and (before := self._states.get(ids[:-1])):
            known = before.after(ids[-1:])
        known = known or start.after(ids)
        if known is None:
            self._fail(f"the text generated so far, {self._shown(ids, context)}, does not fit {self._named()}")
        return known

    def _allowed(self, state: State, ids: tuple[int, ...], context: Context) -> tuple[np.ndarray, bool]:
        try:
            return state.allowed()
        except NoTextError as error:
            after = f" that begins with {self._shown(ids, context)}" if ids else ""
            self._fail(f"no text{after} fits {self._named()}", error)
        except GrammarError as error:
            self._fail(f"{self._named()} cannot be used: {error}", error)

    def _content(self, text: str) -> str:
        """The content of an option: a text, or `@` and the path of a file with the text."""
        if not text.startswith("@"):
            return text
        try:
            with Path(text[1:]).open("rb") as file:
                return read_human_text(file, 4 * LONGEST)  # UTF-8 has up to 4 bytes a character
        except (OSError, ValueError, HumanTextError) as error:
            self._fail(f"the file {text[1:]!r} cannot be read: {_reason(error)}", error)

    def _check(self, text: str) -> None:
        if len(text) > LONGEST:
            self._fail(f"{self.what} has more than {LONGEST:,} characters")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            self._fail(f"{self.what} is not valid Unicode: a lone surrogate at character {error.start}", error)

    def _shown(self, ids: Sequence[int], context: Context) -> str:
        return _short(context.tokenizer.decode(ids)) if context.tokenizer else str(ids)

    def _fail(self, sentence: str, cause: Exception | None = None) -> NoReturn:
        raise InputError(f"{type(self).__name__}: {sentence}.") from cause


@dataclass
class Regex(_Constrained):
    """Keeps the tokens with which the generated text can match a regular expression, from its first character on.

    The end-of-text token is kept where the whole text matches, and is the only one where nothing can follow. The syntax
    is that of the Rust crate regex, https://docs.rs/regex: like Python's, without look-around and backreferences.
    Willard and Louf 2023, Efficient Guided Generation for Large Language Models, arXiv:2307.09702; computed by
    llguidance, https://github.com/microsoft/llguidance, from derivatives of the expression.
    """

    what = "the pattern"

    pattern: Annotated[str, Option("The regular expression.")]

    def __post_init__(self) -> None:
        """Checks the value."""
        self._check(self.pattern)
        # llguidance would silently ignore these.
        if (len(self.pattern) - len(self.pattern.rstrip("\\"))) % 2:
            self._fail(f"{self._named()} cannot be used: it ends with a backslash that escapes nothing")
        if "\n" in self.pattern and re.search(r"\(\?[a-zA-Z]*x", self.pattern):
            self._fail(f"{self._named()} cannot be used: with the flag x it must be a single line")

    def _named(self) -> str:
        return f"the pattern {_short(self.pattern)}"

    def _grammar(self) -> str:
        return f"start: /{_escaped(self.pattern)}/"


@dataclass
class JsonSchema(_Constrained):
    """Keeps the tokens with which the generated text can become JSON that a schema allows.

    The end-of-text token is kept where the text is complete, and is the only one where nothing can follow. Properties
    come in the order in which the schema names them. A schema with a keyword that cannot be enforced is an error.
    https://json-schema.org; by llguidance, Geng et al. 2025, JSONSchemaBench, arXiv:2501.10868, whose keywords are at
    https://github.com/microsoft/llguidance/blob/main/docs/json_schema.md.
    """

    what = "the schema"

    schema: Annotated[dict[str, Any] | bool | str, Option("A mapping, JSON, or @ and the path of a JSON file.")]
    whitespace: Annotated[bool, Option("Whether to allow white space of any length wherever JSON does.")] = False
    _text: str = field(default="", init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Checks the values, and reads the file if there is one."""
        schema = self._parsed(self._content(self.schema)) if isinstance(self.schema, str) else self.schema
        if not self.whitespace and schema is not False:
            schema = {} if schema is True else schema
            hints = schema.get("x-guidance", {})  # llguidance's name for settings beyond the schema
            if isinstance(hints, dict):
                schema = {**schema, "x-guidance": {"whitespace_flexible": False, **hints}}
        try:
            self._text = json.dumps(schema, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            self._fail(f"the schema cannot be written as JSON: {_reason(error)}", error)
        self._check(self._text)

    def _grammar(self) -> str:
        return f"start: %json {self._text}"

    def _parsed(self, text: str) -> dict[str, Any] | bool:
        def refuse(constant: str) -> NoReturn:
            raise ValueError(f"{constant} is not JSON")

        try:
            schema = json.loads(text, parse_constant=refuse)
        except (ValueError, RecursionError) as error:
            self._fail(f"the schema is not JSON: {_reason(error)}; a file is given as @ and its path", error)
        if not isinstance(schema, dict | bool):
            self._fail(f"a schema is a mapping, true or false, not {_short(text)}")
        return schema


@dataclass
class LarkGrammar(_Constrained):
    """Keeps the tokens with which the generated text can fit a context-free grammar, from its rule `start`.

    The end-of-text token is kept where the text is complete, and is the only one where nothing can follow. In the
    notation of the parser generator Lark, https://lark-parser.readthedocs.io/en/stable/grammar.html, as far as
    llguidance has it, https://github.com/microsoft/llguidance/blob/main/docs/syntax.md; which parses by the algorithm
    of Earley 1970, An Efficient Context-Free Parsing Algorithm.
    """

    what = "the grammar"

    grammar: Annotated[str, Option("The grammar; or @ and the path of a file with it.", min_length=1)]
    _text: str = field(default="", init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Checks the value, and reads the file if there is one."""
        self._text = self._content(self.grammar)
        self._check(self._text)
        if self._text.lstrip().startswith("{"):  # which llguidance would read as another notation
            self._fail("a grammar begins with a rule, not with '{'")

    def _grammar(self) -> str:
        return self._text


def _escaped(pattern: str) -> str:
    """A regular expression as it stands between slashes, on one line."""
    return re.sub(r"\\.|/|\n", lambda found: {"/": r"\/", "\n": r"\n"}.get(found[0], found[0]), pattern, flags=re.S)


def _reason(error: Exception) -> str:
    """A Python exception in words."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return str(getattr(error, "strerror", None) or error).removesuffix(".")


def _short(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}...")
