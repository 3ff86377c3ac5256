"""Turns docstrings into readable English: no code, no tables, no licences, nothing said twice."""

__all__ = ["Cleaner", "clean"]

import re

MIN_DOCUMENT = 80  # characters; shorter docstrings ("Return self.") teach nothing but themselves
FEW_WORDS = 6  # paragraphs with fewer plain words ("Args:", "Returns") may occur again and again
MIN_LETTERS = 0.7  # share of letters and spaces below which a paragraph is a table, a formula or a dump
WRAPPED = 60  # a line this long that is followed by another was broken by an editor, not by its author
LONGEST_HEADING = 40  # characters

_FENCE = re.compile(r"^[ \t]*(```|~~~).*?(^[ \t]*\1[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)
_ROLE = re.compile(r":(?:[a-z]+:)+`~?([^`<]+?)(?: <[^`]*>)?`")  # :class:`~a.Name`, :ref:`text <target>`
_URL = re.compile(r"\(?https?://\S+")
_UNDERLINE = re.compile(r"^[ \t]*([=~^*#+-])\1{2,}[ \t]*$")
_ITEM = re.compile(r"^\s*([-*+] |\d+[.)] |[\w*`., ]{1,40}(\(.*\))? ?:(\s|$))")  # of a list, or a parameter
_PLAIN_WORD = re.compile(r"(?<![\w`.])[a-z]+(?![\w`])")

# What makes a whole paragraph worthless here.
_LICENCE = re.compile(
    r"copyright|all rights reserved|licen[cs]ed under|permission is hereby|spdx-|without warranty", re.IGNORECASE
)
_CODE = re.compile(r"^\s*(>>>|\.\.\. |\$ |#!|@|import \w|from \w+ import|def \w+\(|class \w+[(:])", re.MULTILINE)
_DIRECTIVE = re.compile(r"\s*\.\. (?!note|warning)", re.IGNORECASE)
_COLUMNS = re.compile(r"\S {3,}\S")


def clean(docstring: str) -> str:
    """Keeps the prose of a docstring.

    Args:
        docstring: The docstring, without its common indentation.

    Returns:
        Paragraphs separated by one blank line; empty where there is no prose.
    """
    text = _FENCE.sub("", docstring)
    text = _ROLE.sub(r"`\1`", text)
    text = _URL.sub("", text).replace("``", "`")
    paragraphs = ("\n".join(_unwrap(block.split("\n"))) for block in re.split(r"\n\s*\n", text))
    return "\n\n".join(_drop_empty_headings([paragraph for paragraph in paragraphs if _is_prose(paragraph)]))


class Cleaner:
    """Cleans a stream of docstrings and drops every paragraph that an earlier docstring already had.

    Packages copy their parameter descriptions from class to class with one name changed, so two paragraphs
    count as the same if their plain lower-case words are: `Bert`, `768` and `torch.Tensor` do not count.
    That also keeps the held-out text honest: only such short lines of it as "Returns" also occur in training.
    """

    def __init__(self) -> None:
        self._seen: set[tuple[str, ...]] = set()

    def __call__(self, docstring: str) -> str:
        """Returns the new prose of a docstring, or an empty string where too little is left."""
        fresh = [paragraph for paragraph in clean(docstring).split("\n\n") if self._is_new(paragraph)]
        document = "\n\n".join(_drop_empty_headings(fresh))
        return document if len(document) >= MIN_DOCUMENT and _is_english(document) else ""

    def _is_new(self, paragraph: str) -> bool:
        words = tuple(_PLAIN_WORD.findall(paragraph))
        if len(words) < FEW_WORDS:
            return True
        if words in self._seen:
            return False
        self._seen.add(words)
        return True


def _unwrap(lines: list[str]) -> list[str]:
    """Joins lines that were only broken to fit a column, and drops the underlines of headings."""
    joined: list[str] = []
    broken = False  # whether the line before was long enough to have been broken
    for line in (line.rstrip() for line in lines):
        if _UNDERLINE.match(line):
            continue
        if broken and not _ITEM.match(line):
            joined[-1] += " " + line.lstrip()
        else:
            joined.append(line)
        broken = len(line) >= WRAPPED
    return joined


def _is_prose(paragraph: str) -> bool:
    """Whether a paragraph is neither code nor a licence, a directive, a table, a formula or a dump."""
    if _DIRECTIVE.match(paragraph) or any(bad.search(paragraph) for bad in (_CODE, _LICENCE, _COLUMNS)):
        return False
    letters = sum(character.isalpha() or character.isspace() for character in paragraph)
    return bool(paragraph.strip()) and letters >= MIN_LETTERS * len(paragraph)


def _is_english(document: str) -> bool:
    """Whether nearly all of a text is ASCII: a vocabulary of 4,096 has no room for a second script."""
    return sum(character > "\x7f" for character in document) <= 0.01 * len(document)


def _drop_empty_headings(paragraphs: list[str]) -> list[str]:
    """Drops headings ("Examples", "Returns:") whose text was dropped, and directives likewise."""
    kept: list[str] = []
    for paragraph in paragraphs:
        if kept and _is_heading(kept[-1]) and _is_heading(paragraph):
            kept.pop()
        kept.append(paragraph)
    while kept and _is_heading(kept[-1]):
        kept.pop()
    return kept


def _is_heading(paragraph: str) -> bool:
    ends_a_sentence = paragraph.rstrip().endswith((".", "!", "?", ")"))
    return len(paragraph) < LONGEST_HEADING and "\n" not in paragraph and not ends_a_sentence
