"""Text that people wrote, however their editors saved it."""

from __future__ import annotations

import io

import pytest

from onnxlens.runtime._text.human_text import HumanTextError, decoded, read_human_text


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", ""),
        (b"a\nb\n", "a\nb\n"),
        (b"a\r\nb\r\n", "a\nb\n"),
        (b"a\rb\r", "a\nb\n"),
        (b"a\r\r\nb", "a\n\nb"),
        (b"\xef\xbb\xbfcaf\xc3\xa9", "café"),
        (b"\xef\xbb\xbf", ""),
        (b"a\xef\xbb\xbf", "a\ufeff"),
    ],
)
def test_marks_and_line_ends_of_all_editors(content: bytes, text: str) -> None:
    assert decoded(content) == text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"caf\xe9", r"it is not UTF-8 \(byte 3 is 0xe9\)"),
        ("a".encode("utf-16"), "it is UTF-16; save it as UTF-8"),
        (b"123456", "it has more than 5 bytes"),
    ],
)
def test_what_is_no_text(content: bytes, message: str) -> None:
    with pytest.raises(HumanTextError, match=f"^{message}$"):
        read_human_text(io.BytesIO(content), 5)
