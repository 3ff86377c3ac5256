"""Reading JSON files: what is accepted, and the clause that says why a file is not."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from onnxlens.runtime._bundle.json_file import JsonFileError, read_json

LIMIT = 1_000_000


def refused(path: Path, limit: int = LIMIT, *, nan: bool = True) -> str:
    with pytest.raises(JsonFileError) as caught:
        read_json(path, limit, nan=nan)
    text = str(caught.value)
    assert "\n" not in text and len(text) < 200
    return text


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (b'{"a": [1, 2.5, null, "\xc3\xa9"]}', {"a": [1, 2.5, None, "é"]}),
        (b"\xef\xbb\xbf[1]", [1]),
        (b"\r\n[1]\r\n", [1]),
        (b"Infinity", float("inf")),
    ],
    ids=["object", "byte-order mark", "Windows", "infinity"],
)
def test_what_is_accepted(tmp_path: Path, content: bytes, value: object) -> None:
    file = tmp_path / "file.json"
    file.write_bytes(content)
    assert read_json(file, LIMIT) == value


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "it is not JSON (line 1, column 1: Expecting value)"),
        (b"[1,\n 2", "it is not JSON (line 2, column 3: Expecting ',' delimiter)"),
        (b'["a", "\xff"]', "it is not UTF-8 (byte 7 is 0xff)"),
        ("[1]".encode("utf-16"), "it is UTF-16; save it as UTF-8"),
        (b"\xef\xbb\xbf\xef\xbb\xbf[1]", "it is not JSON ("),
        (b"[" * 100_000, "its lists and objects are nested too deeply"),
        (b'{"a":' * 100_000, "its lists and objects are nested too deeply"),
        (b"1" * 5000, "it is not JSON (Exceeds the limit"),
    ],
    ids=["empty", "cut", "Latin-1", "UTF-16", "two marks", "lists", "objects", "digits"],
)
def test_what_is_not_json(tmp_path: Path, content: bytes, text: str) -> None:
    file = tmp_path / "file.json"
    file.write_bytes(content)
    assert refused(file).startswith(text)


def test_what_is_accepted_can_be_written_again(tmp_path: Path) -> None:
    file = tmp_path / "file.json"
    file.write_text("[" * 99 + "1" + "]" * 99)
    assert json.dumps(read_json(file, LIMIT), indent=1)
    file.write_text('[{"a": ' * 50 + "1" + "}]" * 50)
    assert json.dumps(read_json(file, LIMIT), indent=1)
    for content in ("[" * 101 + "]" * 101, '[{"a": ' * 51 + "1" + "}]" * 51, "[[], " + "[" * 600 + "]" * 600 + "]"):
        file.write_text(content)
        assert refused(file) == "its lists and objects are nested too deeply"


def test_nan_is_refused_where_only_json_will_do(tmp_path: Path) -> None:
    file = tmp_path / "file.json"
    file.write_text("[-Infinity]")
    assert refused(file, nan=False) == "it is not JSON (-Infinity is not a JSON number)"


def test_the_limit_is_the_last_size_that_is_read(tmp_path: Path) -> None:
    file = tmp_path / "file.json"
    file.write_bytes(b"[1]")
    assert read_json(file, 3) == [1]
    assert refused(file, 2) == "it is larger than 2 bytes, and no file of its kind needs so many"


def test_a_file_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "file.json"
    with file.open("wb") as writing:
        writing.truncate(1 << 40)  # sparse: it takes no space
    assert refused(file) == "it is larger than 1,000,000 bytes, and no file of its kind needs so many"


def test_what_is_no_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # and nobody writes to it
    assert refused(tmp_path / "pipe") == "it is not a regular file"
    assert refused(Path("/dev/zero")) == "it is not a regular file"
    assert refused(tmp_path) in ("it is not a regular file", "is a directory")


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert refused(tmp_path / "nothing") == "no such file or directory"
    assert refused(tmp_path / "loop") == "too many levels of symbolic links"
    assert "null" in refused(tmp_path / "a\0b")
