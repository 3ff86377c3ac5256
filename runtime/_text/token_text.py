r"""The texts of tokens as a reader sees them: the same in terminals, pictures, pages and notebooks.

Invisible characters are shown as escapes, such as `\n`, and so are bytes that are only a part of a letter, such as
`\xe4`. A backslash stays a backslash, so a text may go through several of these functions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

__all__ = ["printable", "quoted_token", "readable", "told_apart", "visible"]


def readable(encoded: bytes) -> str:
    """The bytes of a token as text; bytes that are only a part of a letter as their escapes."""
    return encoded.decode("utf-8", "backslashreplace")


def printable(token: str) -> str:
    """A token with invisible characters as escapes; a space stays a space."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape", "surrogatepass").decode()
        for letter in token
    )


def visible(token: str) -> str:
    """A token with invisible characters as escapes and spaces as `␣`: for labels."""
    return printable(token).replace(" ", "␣")


def quoted_token(token: str) -> str:
    """A token in quotes, with invisible characters as escapes: for running text and terminals."""
    mark = '"' if "'" in token and '"' not in token else "'"
    return f"{mark}{printable(token)}{mark}"


def told_apart(labels: Sequence[str], first: int = 0) -> list[str]:
    """The labels of a text's tokens; a label that occurs more than once gets `@` and its position.

    Args:
        labels: the labels, in the order of the text.
        first: the position of the first of them.
    """
    counts = Counter(labels)
    return [f"{label}@{place}" if counts[label] > 1 else label for place, label in enumerate(labels, first)]
