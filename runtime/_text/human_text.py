"""Text that people wrote: in a file, or on standard input."""

from __future__ import annotations

import codecs
from typing import BinaryIO

__all__ = ["LONGEST", "HumanTextError", "decoded", "read_human_text"]

LONGEST = 100_000_000  # bytes
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class HumanTextError(Exception):
    """The input cannot be read as text; the message is a clause about it, such as 'it is not UTF-8 …'."""


def read_human_text(file: BinaryIO, limit: int = LONGEST) -> str:
    """Reads a text up to its end; see `decoded`.

    Args:
        file: where to read it from.
        limit: the most bytes that are read: a device may never end.

    Raises:
        HumanTextError: it is too long, or not UTF-8.
    """
    content = file.read(limit + 1)
    if len(content) > limit:
        raise HumanTextError(f"it has more than {limit:,} bytes")
    return decoded(content)


def decoded(content: bytes) -> str:
    r"""Decodes UTF-8 as editors of all systems write it: without a byte-order mark, and lines end with `\n`.

    Raises:
        HumanTextError: it is not UTF-8.
    """
    if content.startswith(_UTF16):
        raise HumanTextError("it is UTF-16; save it as UTF-8")
    try:
        text = content.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise HumanTextError(f"it is not UTF-8 (byte {error.start} is 0x{byte:02x})") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")
