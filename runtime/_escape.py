"""Shows texts from outside safely: names, paths, tokens and options."""

from __future__ import annotations

import re
import reprlib
from typing import Any

__all__ = ["cut", "escape_controls", "json_text", "quoted"]

# Control characters, which a terminal obeys; lone surrogates, which cannot be written; and the marks that break lines
# or reverse the order in which characters are shown, so that a text looks like another one.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

_LONGEST = 200  # characters of a value in an error

_short = reprlib.Repr()  # which also ends where lists lie in lists too deeply
_short.maxstring = _short.maxother = _short.maxlong = _LONGEST
_short.maxlist = _short.maxtuple = _short.maxset = _short.maxfrozenset = _short.maxdict = _short.maxarray = 20


def escape_controls(text: str, keep: str = "") -> str:
    r"""Replaces each control character by its escape, such as `\x1b`, so that a terminal does not obey it.

    Every text that onnxlens prints and did not write itself goes through this function.

    Args:
        text: the text.
        keep: characters to leave as they are, such as a newline.
    """
    return _UNSAFE.sub(lambda found: found[0] if found[0] in keep else repr(found[0])[1:-1], text)


def json_text(text: str, encoding: str = "utf-8") -> str:
    """A JSON document, pretty or not, with the escapes of JSON for what a terminal would obey or an encoding lacks."""
    text = _UNSAFE.sub(lambda found: found[0] if found[0] in "\n\t\r" else _json_escape(found[0]), text)
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return "".join(letter if letter.isascii() else _json_escape(letter) for letter in text)
    return text


def _json_escape(letter: str) -> str:
    units = letter.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[n : n + 2].hex()}" for n in range(0, len(units), 2))


def quoted(value: Any) -> str:
    """A value as it stands in an error: its `repr`, without what is in its middle where it is long."""
    try:
        text = _short.repr(value)
    except ValueError:  # Python refuses to write out integers of more than 4,300 digits
        text = "an integer of thousands of digits"
    return escape_controls(cut(text, _LONGEST))


def cut(text: str, limit: int) -> str:
    """A text of at most so many characters: where it is longer, `...` stands for what is in its middle."""
    if len(text) <= limit:
        return text
    end = (limit - 3) // 2
    return f"{text[: limit - 3 - end]}...{text[-end:]}"
