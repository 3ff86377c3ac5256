"""A chain of samplers written as text: `repetition_penalty=1.1 | top_k=40 | xtc(probability=0.5, threshold=0.1)`."""

from __future__ import annotations

import ast
import io
import re
import tokenize
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from onnxlens.plugins._failures import named_in_errors
from onnxlens.plugins._options import make, option_names
from onnxlens.plugins._sampling.sampler import Chain, Sampler
from onnxlens.runtime._process_wide import ProcessWide
from onnxlens.runtime.errors import InputError, PluginError

if TYPE_CHECKING:
    from onnxlens.plugins._registry import Registry

__all__ = ["parse"]

_LONGEST = 100_000  # characters
_OPEN, _CLOSE = "([{", ")]}"
_WORD = re.compile(r"[^\W\d][\w.+-]*|@[\w./+-]+")  # with @, the path of a file


def parse(text: str, plugins: Registry) -> Chain:
    """Reads a chain from text.

    Stages are separated by `|` and applied from left to right. A stage is a name; or `name=value`, which sets the first
    option; or `name(option=value, ...)`. Values are Python literals, or words, which are read as text.

    Args:
        text: the chain.
        plugins: the available samplers.

    Raises:
        InputError: the text is not a chain, or an option or value is unknown or not allowed.
        PluginError: there is no such sampler, or it is broken.
    """
    if not isinstance(text, str):
        raise InputError(f"A chain of samplers is written as text, not {type(text).__name__}.")
    if len(text) > _LONGEST:
        raise InputError(f"A chain of samplers has at most {_LONGEST:,} characters, not {len(text):,}.")
    text = re.sub(r"\r\n?", "\n", text)
    return Chain([_stage(stage.strip(), plugins, text) for stage in _split(text, "|", text)])


def _stage(stage: str, plugins: Registry, text: str) -> Sampler:
    name, value, arguments = stage, None, None
    if matched := re.fullmatch(r"(\w+)\s*=(.*)", stage, flags=re.S):
        name, value = matched[1], matched[2].strip()
    elif matched := re.fullmatch(r"(\w+)\s*\((.*)\)", stage, flags=re.S):
        name, arguments = matched[1], matched[2].strip()
    if not name:
        raise InputError(f"The chain {_short(text)} has an empty stage; stages are separated by single '|'.")
    if not re.fullmatch(r"\w+", name):
        raise InputError(
            f"The stage {_short(stage)} cannot be read; write a sampler as name, name=value or name(option=value, ...)."
        )
    try:
        entry = plugins.get("sampler", name)
    except PluginError as error:
        if stage == name and "=" in text.partition(stage)[0]:  # it may be a part of the previous value
            raise PluginError(f"{error} A value that contains '|' needs quotes: name='a|b'.") from error
        raise
    sampler: type[Sampler] = entry.plugin
    options: dict[str, Any] = {}
    if value is not None:
        known = option_names(sampler)
        if not known:
            raise InputError(f"{name} has no options, so write {name!r} alone.")
        options[known[0]] = _value(value, stage)
    for part in _split(arguments, ",", stage) if arguments else ():
        matched = re.fullmatch(r"\s*(\w+)\s*=(.*)", part, flags=re.S)
        if not matched:
            known = option_names(sampler) or ("option",)
            raise InputError(f"In {_short(stage)}, write options as option=value, such as {known[0]}=...")
        if matched[1] in options:
            raise InputError(f"In {_short(stage)}, the option {matched[1]!r} is given twice.")
        options[matched[1]] = _value(matched[2].strip(), stage)
    with named_in_errors(f"The sampler {name!r} ({entry.distribution})"):
        return make(sampler, name, options)


@contextmanager
def _ignored() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


_without_warnings = ProcessWide(_ignored)


def _value(text: str, stage: str) -> Any:
    """A Python literal, or a word as text."""
    try:
        with _without_warnings():  # unknown escapes in a text are kept, without a warning
            return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError) as error:
        if _WORD.fullmatch(text):
            return text
        what = f"the value {_short(text)} cannot be read" if text else "a value is missing"
        raise InputError(f"In {_short(stage)}, {what}; write a number, a word, or text in quotes.") from error


def _split(text: str, separator: str, whole: str) -> list[str]:
    """Splits a text at separators outside of quotes and brackets."""
    source = f"({text}\n)"  # in brackets, a new line is a space like any other
    starts = [0, *(match.end() for match in re.finditer("\n", source)), len(source)]
    opened: list[str] = []
    parts, begin = [], 1
    try:
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            place = starts[token.start[0] - 1] + token.start[1]
            if token.type == tokenize.COMMENT:
                raise InputError(f"{_short(whole)} has a '#' outside of quotes, which means nothing here.")
            if token.type == tokenize.ERRORTOKEN and token.string[0] in "'\"":
                raise tokenize.TokenError
            if token.type == tokenize.OP and token.string in _OPEN:
                opened.append(token.string)
            elif token.type == tokenize.OP and token.string in _CLOSE:
                fits = opened and _OPEN.index(opened.pop()) == _CLOSE.index(token.string)
                if not fits or (not opened and place < len(source) - 1):
                    raise InputError(f"{_short(whole)} has a {token.string!r} that closes nothing.")
            elif token.type == tokenize.OP and token.string[0] == separator and len(opened) == 1:
                parts.append(source[begin:place])
                begin = place + 1
    except (tokenize.TokenError, SyntaxError, UnicodeEncodeError) as error:  # the last since 3.12, for lone surrogates
        raise InputError(f"{_short(whole)} cannot be read; check its quotes and brackets.") from error
    return [*parts, source[begin:-2]]


def _short(text: str) -> str:
    """A text in quotes, cut to about sixty characters."""
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
