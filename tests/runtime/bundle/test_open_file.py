"""Files that are opened once: kept when the path is gone, refused when they were changed."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from onnxlens.runtime._bundle.open_file import OpenFile
from onnxlens.runtime.errors import BundleError


@pytest.fixture
def path(tmp_path) -> Path:
    made = tmp_path / "file"
    made.write_bytes(b"0123456789")
    return made


def overwrite(path: Path, content: bytes) -> None:
    """Writes into the file that is there, at a time that differs from its last one on any file system."""
    path.write_bytes(content)
    os.utime(path, (1, 1))


def test_the_file_that_was_opened_is_read_after_its_path_was_replaced_or_deleted(path):
    opened = OpenFile(path)
    (path.parent / "other").write_bytes(b"another one")
    (path.parent / "other").replace(path)
    assert opened.read() == opened.map().tobytes() == b"0123456789"
    path.unlink()
    assert opened.read(3, 4) == b"3456"
    assert opened.sha256() == hashlib.sha256(b"0123456789").hexdigest()


def test_a_file_that_was_cut_is_refused_before_it_is_read(path):
    opened = OpenFile(path, remedy="Make it again.")
    os.truncate(path, 4)
    for use in (opened.read, opened.map, opened.sha256, opened.check):
        with pytest.raises(BundleError) as caught:
            use()
        assert str(caught.value) == f"{path} was cut from 10 to 4 bytes while it was in use. Make it again."


def test_a_file_that_was_overwritten_is_refused_also_with_as_many_bytes(path):
    opened = OpenFile(path, sha256=hashlib.sha256(b"0123456789").hexdigest())
    overwrite(path, b"9876543210")
    with pytest.raises(BundleError, match="file was changed while it was in use"):
        opened.read()


def test_a_file_that_was_only_touched_is_used_on_if_its_content_is_known(path):
    known, unknown = OpenFile(path, sha256=hashlib.sha256(b"0123456789").hexdigest()), OpenFile(path)
    os.utime(path, (1, 1))
    assert known.read() == b"0123456789"
    with pytest.raises(BundleError, match="was changed while it was in use"):
        unknown.read()


def test_reading_behind_the_end_is_said_with_where_the_file_ends(path):
    with pytest.raises(BundleError, match="is damaged: it ends at byte 10"):
        OpenFile(path).read(8, 5)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_what_is_no_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path(os.devnull)):
        with pytest.raises(BundleError, match="is not a regular file"):
            OpenFile(path)
