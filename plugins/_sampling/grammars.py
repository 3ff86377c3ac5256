"""Texts that follow a grammar, token by token: the interface to llguidance, imported when it is first used.

The library's own grammars are in a variant of Lark's notation, in which regular expressions and JSON schemas can stand.
"""

from __future__ import annotations

import contextlib
import re
import threading
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from onnxlens.runtime._text.tokenizer import Tokenizer
from onnxlens.runtime.errors import InputError, MissingLibraryError

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

__all__ = ["LONGEST", "GrammarError", "NoTextError", "State", "begin"]

LONGEST = 100_000  # characters of a grammar

_PATIENCE = 60.0  # seconds
# The library reads grammars by recursion, and would end the process if the stack overflowed: it takes about 3 kB for
# each of the nested definitions, of which the longest grammar can hold some 12,000.
_STACK = 128 * 1024 * 1024  # bytes; only those that are used take memory
_END = "<|onnxlens: here the text may end|>"
_LONGEST_ERROR = 200

# Otherwise, where only one text is possible, the library would allow only one way to cut it into tokens.
_EVERY_TOKEN = '\n%llguidance {"no_forcing": true}\n'

_stack = threading.Lock()


class GrammarError(Exception):
    """The library's objection to a grammar, in words."""


class NoTextError(GrammarError):
    """No text fits a grammar, or no text with the given beginning does."""


class _Vocabulary(NamedTuple):
    """A tokenizer in the library's form, with an additional token for the end of a text."""

    tokenizer: LLTokenizer
    end: int


_vocabularies: weakref.WeakKeyDictionary[Tokenizer, _Vocabulary] = weakref.WeakKeyDictionary()


class State:
    """The state of a text, which says what may follow; it never changes.

    Args:
        matcher: the library's matcher after the tokens of the text.
        end: the token for the end of a text.
    """

    def __init__(self, matcher: LLMatcher, end: int) -> None:
        self._matcher, self._end = matcher, end

    def after(self, tokens: Sequence[int]) -> State | None:
        """The state after more tokens; None if they may not follow."""
        matcher = self._matcher.deep_copy()
        known = all(0 <= token < self._end for token in tokens)
        return State(matcher, self._end) if known and matcher.consume_tokens(list(tokens)) else None

    def allowed(self) -> tuple[np.ndarray, bool]:
        """Which tokens of the tokenizer may follow, bool, and whether the text may end.

        Raises:
            GrammarError: the computation takes too long.
            NoTextError: nothing may follow, and the text may not end.
        """
        mask = self._matcher.compute_bitmask()
        if self._matcher.is_error():
            error = _words(self._matcher.get_error())
            raise (NoTextError if error.startswith("NoExtension") else GrammarError)(error)
        bits = np.unpackbits(np.frombuffer(mask, np.uint8), bitorder="little")
        return bits[: self._end].astype(np.bool_), bool(bits[self._end])

    def clone(self) -> State:
        """The same state, which another thread may use at the same time."""
        return State(self._matcher.deep_copy(), self._end)


def begin(grammar: str, tokenizer: Tokenizer) -> State:
    """The state before a text.

    Args:
        grammar: in llguidance's variant of Lark's notation.
        tokenizer: of the model.

    Raises:
        GrammarError: the grammar is not valid, or is too large.
        InputError: llguidance cannot read the tokenizer.
        MissingLibraryError: it is not installed.
    """
    try:
        from llguidance import LLMatcher, LLParserLimits
    except ImportError as error:
        raise MissingLibraryError(
            "Samplers that follow a grammar need llguidance, which is not installed: pip install "
            "'onnxlens[constrained]'."
        ) from error
    vocabulary = _vocabulary(tokenizer)
    limits = LLParserLimits(precompute_large_lexemes=False, verbose_errors=False)
    made: list[LLMatcher | BaseException] = []

    def make() -> None:
        try:
            made.append(LLMatcher(vocabulary.tokenizer, grammar + _EVERY_TOKEN, log_level=0, limits=limits))
        except BaseException as error:  # a panic of the library's Rust code is not an Exception
            made.append(error)

    # A daemon thread does not keep the process alive, and waiting for it can be interrupted.
    thread = threading.Thread(target=make, name="llguidance", daemon=True)
    _start(thread)
    thread.join(_PATIENCE)
    if not made:
        raise GrammarError(f"it is too large to be read within {_PATIENCE:.0f} seconds")
    (matcher,) = made
    if isinstance(matcher, BaseException):
        raise GrammarError(_words(str(matcher))) from matcher
    if matcher.is_error():
        raise GrammarError(_words(matcher.get_error()))
    return State(matcher, vocabulary.end)


def _start(thread: threading.Thread) -> None:
    """Starts a thread with a large stack, where the system allows that."""
    with _stack:
        before = threading.stack_size()
        with contextlib.suppress(ValueError, RuntimeError):
            threading.stack_size(_STACK)
        try:
            thread.start()
        finally:
            threading.stack_size(before)


def _vocabulary(tokenizer: Tokenizer) -> _Vocabulary:
    if tokenizer not in _vocabularies:
        from llguidance import LLTokenizer
        from tokenizers import Tokenizer as FastTokenizer

        # The end is a token of its own, so that it is distinct from the model's end-of-text tokens.
        fast = FastTokenizer.from_str(tokenizer.to_json())
        fast.add_special_tokens([_END])
        end = fast.token_to_id(_END)
        assert end is not None  # it was added
        try:
            made = LLTokenizer(fast.to_str(), eos_token=end)
        except ValueError as error:
            raise InputError(f"llguidance cannot read this model's tokenizer: {_words(str(error))}.") from error
        _vocabularies[tokenizer] = _Vocabulary(made, end)
    return _vocabularies[tokenizer]


def _words(error: str) -> str:
    """An error of the library on one line, without excerpts of the grammar and of its own state."""
    text = re.split(r"\n<|\n +\d+ \|", error)[0]
    place = re.match(r"(?:at )?(\d+)\((\d+)\): ", text)
    text = text[place.end() if place else 0 :]
    text = text.rpartition("\nerror: ")[2]  # of a regular expression, the text after a drawing of the place
    text = re.sub(r'^invalid regex ".*?" \(in regex\): |^failed to compile JSON schema: ', "", text, flags=re.S)
    if place and place.groups() != ("1", "8"):  # behind `start: `, where all of a pattern or schema stands
        text = f"line {place[1]}, column {place[2]}: {text}"
    text = " ".join(text.split()).removesuffix(".")
    return text if len(text) <= _LONGEST_ERROR else f"{text[:_LONGEST_ERROR]}…"
