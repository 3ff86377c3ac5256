"""Turns documentation into readable English with some code: no dumps, no tables, no licences, nothing said twice."""

__all__ = ["CODE_SHARE", "Cleaner", "Piece", "clean", "pieces"]

import ast
import re
import textwrap
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

FEW_WORDS = 6  # paragraphs with fewer plain words ("Args:", "Returns") may occur again and again
MANY_WORDS = 8  # a line of a list with so many is dropped on its own if an earlier list had it
LONG_LINE = 50  # characters; so is a line with fewer words, if it is the same in every character
MIN_TEXT = 30  # characters; what is shorter ("Return self.") teaches nothing but itself
MIN_LETTERS = 0.7  # share of letters and spaces below which a paragraph is a table, a formula or a dump
MIN_CODE_LETTERS = 0.55  # the same for code
LONGEST_CODE = 1500  # characters of one example
LONGEST_CODE_LINE = 100
CODE_SHARE = 0.15  # of all characters kept; more would make a programming corpus of it
WRAPPED = 55  # a line this long that is followed by another was broken by an editor, not by its author
LONGEST_HEADING = 40  # characters

_ASCII = str.maketrans({
    "\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2013": "-", "\u2014": " - ", "\u2026": "...",
    "\u00a0": " ", "\u2011": "-", "\u2212": "-", "\u200b": "", "\ufeff": "", "\u2022": "*", "\t": "    ", "\f": "",
})  # fmt: skip

# Markup that goes while its text stays.
_ROLE = re.compile(r":(?:[a-z]+:)+`~?([^`<]+?)(?:\s<[^`]*>)?`")  # :class:`~a.Name`, :ref:`text <target>`
_RST_LINK = re.compile(r"`([^`<]+?)\s+<[^`>]+>`__?")
_MD_IMAGE = re.compile(r"\[?!\[[^\]]*\](?:\([^)]*\)|\[[^\]]*\])(?:\]\([^)]*\))?")
_MD_LINK = re.compile(r"\[([^\]\n]+)\](?:\(<?(?:https?:|[#./\w-]+)[^)\s]*>?(?:\s+\"[^\"]*\")?\)|\[[\w-]+\])")
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_TAG = re.compile(r"</?[a-zA-Z][a-zA-Z0-9]*(?:\s+[\w-]+\s*=\s*[\"'][^\"']*[\"'])*\s*/?>")
_URL = re.compile(r"[(<]?(?:https?|ftp)://[^\s>)\]]+[>)]?")
_PLACEHOLDER = re.compile(r"^[ \t]*(?:\{\w+\}|%\([\w:]+\)s|\$?\{\{?\s*\w+\s*\}?\})[ \t]*$", re.MULTILINE)
_CHANGE = re.compile(r"(?:,? by @[\w-]+)?(?: in)?\s*\(?\[?#\d{2,}\]?\)?(?:\(\))?")  # of change logs
_BOLD = re.compile(r"\*\*(?=[^\s*])([^*]+)(?<=\S)\*\*")
_UNDERLINE = re.compile(r"^[ \t]*([=~^*#+\"'`-])\1{2,}[ \t]*$")
_MD_HEADING = re.compile(r"^#{1,6} +(.*?)(?: +#+)?$")
_NOTE = re.compile(r"^(\s*)(?:\.\. (note|warning|tip|important|caution)::|> \[!(\w+)\]|> ?)[ \t]*", re.IGNORECASE)
_ITEM = re.compile(r"^\s*(?:[-*+] |\d+[.)] |[\w*`., ]{1,40}(?:\(.*\))? ?:(?:\s|$))")  # of a list, or a parameter

# What a block is.
_FENCE = re.compile(r"^\s*(```+|~~~+(?=\w))")  # a bare ~~~ underlines a heading
_PROMPT = re.compile(r"^\s*(?:>>> ?|\.\.\. ?(?=\s|\S)|In \[\d+\]: )")
_FIRST_PROMPT = re.compile(r"^\s*>>>(?: |$)")
_DIRECTIVE = re.compile(r"^\s*\.\. ?(?:[\w:-]+::|_|\||\w+:|\[)")
_CODE_DIRECTIVE = re.compile(r"^\s*\.\. (?:code|code-block|sourcecode|testcode|ipython|doctest|plot)::")
_DROPPED_DIRECTIVE = re.compile(
    r"^\s*\.\. (?:math|image|figure|table|list-table|csv-table|toctree|autosummary|raw|graphviz|testsetup|"
    r"testoutput|rubric|automodule|autoclass|autofunction|autodata|currentmodule|module|index|contents|grid|_|\|)"
)

# What makes a whole paragraph worthless here.
_LICENCE = re.compile(
    r"copyright|all rights reserved|licen[cs]ed under|permission is hereby|spdx-|without warranty|no warranty|"
    r"warranties or cond",
    re.IGNORECASE,
)
_CODE_LIKE = re.compile(
    r"\s*(?:\$ |#!|@\w[\w.]*(?:\(.*\))?$|import \w[\w.]*$|from [\w.]+ import |def \w+\(|class \w+[(:]|async def |"
    r"[{<(]\w*[>}]|%timeit|!!! |C:\\)",
    re.MULTILINE,
)
_COLUMNS = re.compile(r"\S {3,}\S")
_DESCRIPTION = re.compile(r"\S+ {3,}\S+(?: \S+){4,}")  # the second of two columns is English
_GRAMMAR = re.compile(r"::=|^\s*\| .* \|\s*$|[-=]{3,}[ +][-=]{3,}|^\s*\+-", re.MULTILINE)
_FORMULA = re.compile(r"\\[a-zA-Z]{2,}|[_^]\{")
_UNREADABLE = re.compile(
    r"[^\s`'\"(),=.]{60,}|\b(?=[a-f]*\d)[0-9a-f]{12,}\b|0x[0-9a-f]{7,}|\\x[0-9a-f]{2}"
    r"|<\|\w+\|>|[\x00-\x08\x0e-\x1f]"  # tokens that say where a text ends, and bytes that are no text
)
_CHANGE_LOG = re.compile(r"#\d{3,}|gh-\d{4,}|@[\w-]+\b(?=,| in |\)|$)|:issue:|:pr:", re.MULTILINE)

_PLAIN_WORD = re.compile(r"(?<![\w`.])[a-z]+(?![\w`])")
_CODE_WORD = re.compile(r"(?<![A-Za-z0-9])[a-z_]{2,}(?![A-Za-z0-9])")
_IMPORT = re.compile(r"^(?:>>> )?(?:import|from) .*$", re.MULTILINE)

# Statements that prose is never mistaken for.
_STATEMENTS = (
    ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.For, ast.While, ast.With,
    ast.AsyncWith, ast.If, ast.Assign, ast.AugAssign, ast.Return, ast.Try, ast.Call, ast.Raise, ast.Assert,
)  # fmt: skip


class Piece(NamedTuple):
    """A paragraph, or an example of code with its blank lines."""

    text: str
    is_code: bool


def pieces(text: str, dropped: Counter[str] | None = None) -> list[Piece]:
    """Keeps what is readable of a text.

    Args:
        text: A docstring or a file in reStructuredText or Markdown, without its common indentation.
        dropped: Where to count the characters that are dropped, by reason.

    Returns:
        Paragraphs and examples in the order of the text, without headings of which nothing is left.
    """
    dropped = Counter() if dropped is None else dropped
    kept = []
    for kind, block in _blocks(_strip_markup(text)):
        if kind == "dropped":
            dropped["directive"] += len(block)
        elif kind == "code" or _FIRST_PROMPT.match(block) or _is_python(block):
            code, reason = _example(block)
            dropped[reason] += len(block) - len(code)
            if code:
                kept.append(Piece(code, True))
        elif reason := _fault(block):
            dropped[reason] += len(block)
        elif paragraph := "\n".join(_unwrap(block.split("\n"))):
            kept.append(Piece(paragraph, False))
    return _drop_empty_headings(kept)


def clean(text: str) -> str:
    """Like `pieces`, with one blank line between two; empty where nothing is readable."""
    return "\n\n".join(piece.text for piece in pieces(text))


class Cleaner:
    """Cleans a stream of texts and drops every paragraph and example that an earlier text already had.

    Packages copy their parameter descriptions from class to class with one name changed, so two paragraphs
    count as the same if their plain lower-case words are: `Bert`, `768` and `torch.Tensor` do not count.
    That also keeps the held-out text honest: no paragraph of it with more than a few plain words is in training.

    Attributes:
        dropped: Characters dropped so far, by reason.
        kept: Characters kept so far.
        code: Those of them that are code.
    """

    def __init__(self) -> None:
        self._seen: set[tuple[str, ...]] = set()
        self.dropped: Counter[str] = Counter()
        self.kept = 0
        self.code = 0

    def __call__(self, text: str) -> str:
        """Returns what is new and readable of a text, or an empty string where too little is left."""
        fresh = [new for piece in pieces(text, self.dropped) if (new := self._new(piece))]
        fresh = _drop_empty_headings(fresh)
        document = "\n\n".join(piece.text for piece in fresh)
        if len(document) < MIN_TEXT or all(piece.is_code for piece in fresh):
            self.dropped["short"] += len(document)
            return ""
        self.kept += len(document)
        self.code += sum(len(piece.text) for piece in fresh if piece.is_code)
        return document

    def _new(self, piece: Piece) -> Piece | None:
        """What is new of a piece: an item of a list that an earlier list had goes, and so do known imports."""
        text = "\n".join(line for line in piece.text.split("\n") if not self._is_known_line(line, piece.is_code))
        self.dropped["duplicate"] += len(piece.text) - len(text)
        if piece.is_code and self.code > CODE_SHARE * max(self.kept, 100_000):
            self.dropped["too much code"] += len(text)
        elif self._is_known(_words(text, piece.is_code), piece.is_code):
            self.dropped["duplicate"] += len(text)
        elif text:
            return Piece(text, piece.is_code)
        return None

    def _is_known_line(self, line: str, is_code: bool) -> bool:
        if is_code:
            return bool(_IMPORT.match(line)) and self._is_known(("import", *_CODE_WORD.findall(line)), True)
        words = tuple(_PLAIN_WORD.findall(line))
        if len(words) < MANY_WORDS:  # names and numbers, mostly: known if all of it is
            return len(line) >= LONG_LINE and self._is_known(("line", line.strip()), True)
        return self._is_known(("line", *words), False)

    def _is_known(self, words: tuple[str, ...], is_code: bool) -> bool:
        """Whether words were seen before; notes them if not. Very short paragraphs are never known."""
        if not is_code and len(words) < FEW_WORDS:
            return False
        key = ("()", *words) if is_code else words  # "()": an example is no repetition of a paragraph
        if key in self._seen:
            return True
        self._seen.add(key)
        return False


def _words(text: str, is_code: bool) -> tuple[str, ...]:
    """What two texts must share to count as the same; imports do not matter."""
    if is_code:
        return tuple(_CODE_WORD.findall(_IMPORT.sub("", text)))
    return tuple(_PLAIN_WORD.findall(text))


def _strip_markup(text: str) -> str:
    """Drops addresses, targets, tags and placeholders; text and code in between stay."""
    text = _COMMENT.sub("", text.replace("\r\n", "\n").translate(_ASCII))
    text = _ROLE.sub(r"`\1`", text)
    text = _RST_LINK.sub(r"\1", text)
    text = _MD_IMAGE.sub("", text)
    text = _MD_LINK.sub(r"\1", text)
    return _PLACEHOLDER.sub("", text)


def _blocks(text: str) -> Iterator[tuple[str, str]]:
    """Cuts a text into blocks: kind `text`, `code` or `dropped`, and the lines."""
    lines = text.split("\n")
    at = 0
    literal: str | None = None  # the kind of the indented block that comes next
    base = 0  # the indentation that it exceeds
    while at < len(lines):
        line = lines[at]
        if not line.strip():
            at += 1
            continue
        if literal and _indent(line) > base:
            end = _end_of_indented(lines, at, base)
            yield literal, textwrap.dedent("\n".join(lines[at:end])).strip("\n")
            at, literal = end, None
            continue
        literal = None
        if fence := _FENCE.match(line):
            end = next((i for i in range(at + 1, len(lines)) if lines[i].strip().startswith(fence[1][:3])), len(lines))
            yield "code", textwrap.dedent("\n".join(lines[at + 1 : end])).strip("\n")
            at = end + 1
            continue
        if _DIRECTIVE.match(line) and not _NOTE.match(line):
            base = _indent(line)
            end = at + 1
            while end < len(lines) and lines[end].strip() and _indent(lines[end]) > base:
                end += 1  # its options, and text that follows without a blank line
            yield "dropped", "\n".join(lines[at:end])
            literal = "code" if _CODE_DIRECTIVE.match(line) else "dropped" if _DROPPED_DIRECTIVE.match(line) else None
            at = end
            continue
        end = at + 1
        is_doctest = bool(_FIRST_PROMPT.match(line))
        while end < len(lines) and lines[end].strip() and not _FENCE.match(lines[end]):
            if not is_doctest and _FIRST_PROMPT.match(lines[end]):
                break
            end += 1
        block = "\n".join(lines[at:end])
        if not is_doctest and block.rstrip().endswith("::") and not _NOTE.match(lines[end - 1]):
            literal, base = "code", _indent(lines[end - 1])
            block = block.rstrip()[:-1].removesuffix(" :")
        if block.strip(" :"):
            yield "text", block
        at = end


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _end_of_indented(lines: list[str], start: int, base: int) -> int:
    end = start
    while end < len(lines) and (not lines[end].strip() or _indent(lines[end]) > base):
        end += 1
    return end


def _example(block: str) -> tuple[str, str]:
    """The input of an example of Python, or nothing, and why the rest is dropped."""
    lines = textwrap.dedent(block).rstrip().split("\n")
    if any(_FIRST_PROMPT.match(line) for line in lines):
        lines = [re.sub(r"\s*# ?x?doctest:.*", "", line.strip()) for line in lines if _PROMPT.match(line)]
        lines = [line for line in lines if line not in (">>>", "...")]
        program = "\n".join(_PROMPT.sub("", line, count=1) for line in lines)
        reason = "code output"
    else:
        program = "\n".join(lines)
        reason = "other code"
    code = "\n".join(line.rstrip() for line in lines)
    letters = sum(character.isalpha() or character.isspace() for character in program)
    readable = (
        len(code) <= LONGEST_CODE
        and code.isascii()
        and max(map(len, lines), default=0) <= LONGEST_CODE_LINE
        and letters >= MIN_CODE_LETTERS * len(program)
        and not _UNREADABLE.search(code)
        and not _LICENCE.search(code)
    )
    if not readable:
        return "", "unreadable code"
    return (code, reason) if _is_python(program) else ("", "other code")


def _is_python(block: str) -> bool:
    """Whether a block is Python and could not be prose as well."""
    if not re.search(r"[=(]|import ", block):
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other people's invalid escapes
        try:
            tree = ast.parse(textwrap.dedent(block))
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            return False
    return any(isinstance(node, _STATEMENTS) for node in ast.walk(tree))


def _fault(paragraph: str) -> str:
    """Why a paragraph is not prose, in a word or two; empty where it is."""
    paragraph = _URL.sub("", paragraph)
    if _LICENCE.search(paragraph):
        return "licence"
    if _CODE_LIKE.match(paragraph):
        return "other code"
    lines = [line.strip().lstrip("-*+ ") for line in paragraph.split("\n") if not _UNDERLINE.match(line)]
    columns = sum(bool(_COLUMNS.search(line)) and not _DESCRIPTION.fullmatch(line) for line in lines)
    if _GRAMMAR.search(paragraph) or 2 * columns > len(lines):
        return "table"
    if sum(character > "\x7f" for character in paragraph) > 0.02 * len(paragraph):
        return "not English"
    if len(_FORMULA.findall(paragraph)) * 60 > len(paragraph):
        return "formula"
    if _UNREADABLE.search(paragraph) or len(_CHANGE_LOG.findall(paragraph)) * 80 > len(paragraph):
        return "unreadable"
    paragraph = "\n".join(lines)
    letters = sum(character.isalpha() or character.isspace() for character in paragraph)
    return "" if letters >= MIN_LETTERS * len(paragraph) else "symbols"


def _unwrap(lines: list[str]) -> list[str]:
    """Joins lines that were only broken to fit a column, and drops the markup of headings and notes."""
    joined: list[str] = []
    before = ""  # the line before, as it was
    for line in (_plain(line) for line in lines):
        if not line.strip() or _UNDERLINE.match(line):
            before = ""
            continue
        hangs = _indent(line) == _indent(before) or bool(_ITEM.match(before))
        broken = len(before) >= WRAPPED or (hangs and line.lstrip()[0].islower() and not before.endswith((".", ":")))
        if before and broken and not _ITEM.match(line) and (" " in line.strip() or line.endswith((".", ":", ","))):
            joined[-1] += " " + line.lstrip()
        else:
            joined.append(line)
        before = line
    return joined


def _plain(line: str) -> str:
    line = _URL.sub("", _TAG.sub("", line.rstrip()))
    line = _MD_HEADING.sub(r"\1", line)
    line = _NOTE.sub(
        lambda found: f"{found[1]}{(found[2] or found[3]).title()}: " if found[2] or found[3] else "", line
    )
    line = _CHANGE.sub("", line) if "#" in line else line
    line = line.replace("``", "`")
    line = _BOLD.sub(r"\1", line)
    return re.sub(r"(?<=\S) {2,}", " ", line).rstrip()


def _drop_empty_headings(found: list[Piece]) -> list[Piece]:
    """Drops headings ("Examples", "Returns:") whose text was dropped."""
    kept: list[Piece] = []
    for piece in found:
        if kept and _is_heading(kept[-1]) and _is_heading(piece):
            kept.pop()
        kept.append(piece)
    while kept and _is_heading(kept[-1]):
        kept.pop()
    return kept


def _is_heading(piece: Piece) -> bool:
    text = piece.text.rstrip()
    ends_a_sentence = text.endswith((".", "!", "?", ")"))
    return not piece.is_code and len(text) < LONGEST_HEADING and "\n" not in text and not ends_a_sentence
