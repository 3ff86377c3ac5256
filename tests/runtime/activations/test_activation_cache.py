"""The mapping of what was read, and the file it is saved to."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from safetensors import safe_open

from onnxlens.runtime._activations.cache import ActivationCache
from onnxlens.runtime.errors import HookPointError, OutputError


@pytest.fixture
def cache(runner) -> ActivationCache:
    ids = np.array([[5, 6, 7]])
    output = runner("base").run(ids, names_filter=["hook_embed", "blocks.*.attn.hook_pattern"])
    return ActivationCache(output.activations, ids, model="base")


def test_it_is_a_mapping_in_the_order_of_computation(cache):
    assert list(cache) == ["hook_embed", "blocks.0.attn.hook_pattern", "blocks.1.attn.hook_pattern"]
    assert len(cache) == 3
    assert "hook_embed" in cache
    assert "hook_pos_embed" not in cache
    assert cache["blocks.0.attn.hook_pattern"].shape == (1, 4, 3, 3)
    assert cache.nbytes == 4 * (3 * 32 + 2 * 4 * 9)
    assert repr(cache) == "ActivationCache(3 hook points, 672 bytes, tokens (1, 3))"
    assert cache.get("hook_pos_embed") is None


def test_a_hook_point_that_was_not_read_is_named_with_the_nearest(cache):
    with pytest.raises(HookPointError) as caught:
        cache["blocks.0.attn.hook_patern"]
    assert str(caught.value) == (
        "'blocks.0.attn.hook_patern' was not read; this cache holds 3 hook points. Did you mean "
        "'blocks.0.attn.hook_pattern' or 'blocks.1.attn.hook_pattern'? Name it in names_filter to read it."
    )


def test_a_saved_cache_is_read_back_bit_by_bit(cache, tmp_path):
    path = tmp_path / "trace.safetensors"
    cache.save(path, str_tokens=["a", "\N{SNOWMAN}", "\n"])
    with safe_open(path, "numpy") as file:
        header = file.metadata()
        assert header["model"] == "base"
        assert header["format"] == "onnxlens.trace.2"
        assert json.loads(header["str_tokens"]) == ["a", "\N{SNOWMAN}", "\n"]
        assert json.loads(header["hook_points"]) == list(cache)
        assert set(file.keys()) == {*cache, "tokens", "attention_mask"}
        for name, value in cache.items():
            np.testing.assert_array_equal(file.get_tensor(name), value)
        np.testing.assert_array_equal(file.get_tensor("tokens"), [[5, 6, 7]])
        np.testing.assert_array_equal(file.get_tensor("attention_mask"), [[1, 1, 1]])
    assert [file.name for file in tmp_path.iterdir()] == ["trace.safetensors"]


@given(
    value=arrays(np.float32, array_shapes(max_dims=4, max_side=4), elements=st.floats(width=32, allow_subnormal=True)),
    transpose=st.booleans(),
)
def test_any_array_survives_also_one_that_is_not_contiguous(tmp_path_factory, value, transpose):
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    value = value.T if transpose else value
    ActivationCache({"x": value}, np.array([[1]])).save(path)
    with safe_open(path, "numpy") as file:
        np.testing.assert_array_equal(file.get_tensor("x"), value)


def refused(cache: ActivationCache, path: Path) -> str:
    with pytest.raises(OutputError) as caught:
        cache.save(path)
    return str(caught.value)


def test_a_folder_is_no_file(cache, tmp_path):
    assert refused(cache, tmp_path) == f"Cannot write {tmp_path}: it is a folder; name a file in it."
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_named(cache, tmp_path):
    path = tmp_path / "no" / "trace"
    assert refused(cache, path) == f"Cannot write {path}: there is no folder {path.parent}."


def test_a_file_is_no_folder(cache, tmp_path):
    (tmp_path / "file").write_text("kept")
    path = tmp_path / "file" / "trace"
    assert refused(cache, path) == f"Cannot write {path}: there is no folder {path.parent}."
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.skipif(not Path("/dev/null").exists(), reason="there is no /dev/null here")
def test_a_device_is_not_replaced(cache):
    assert refused(cache, Path("/dev/null")) == "Cannot write /dev/null: it is not a regular file."
    assert Path("/dev/null").is_char_device()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="there is no /proc here, where nobody may write")
def test_a_folder_that_cannot_be_written_to(cache):
    assert refused(cache, Path("/proc/trace")).startswith("Cannot write /proc/trace: ")


def test_a_failed_write_leaves_the_old_file(cache, tmp_path, monkeypatch):
    path = tmp_path / "trace"
    path.write_text("old")
    monkeypatch.setattr(Path, "replace", lambda *a: (_ for _ in ()).throw(OSError(28, os.strerror(28))))
    assert refused(cache, path) == f"Cannot write {path}: No space left on device."
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["trace"]


def test_an_existing_file_is_replaced_and_a_link_stays_a_link(cache, tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    cache.save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    with safe_open(tmp_path / "real", "numpy") as file:
        assert "hook_embed" in file.keys()  # noqa: SIM118 - not a mapping


def test_a_file_that_is_replaced_stays_as_open_as_it_was(cache, tmp_path):
    (tmp_path / "secret").touch(mode=0o600)
    cache.save(tmp_path / "secret")
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600


@pytest.mark.skipif(
    os.geteuid() == 0 and not shutil.which("setpriv"), reason="needs a user other than root, or setpriv"
)
def test_a_protected_file_is_kept_also_where_its_folder_is_not(tmp_path):
    path = tmp_path / "mine"
    path.write_text("kept")
    path.chmod(0o444)
    code = f"from onnxlens.runtime._files import replaced\nwith replaced({str(path)!r}): pass"
    rights = ["setpriv", "--bounding-set", "-dac_override"] if os.geteuid() == 0 else []
    ran = subprocess.run([*rights, sys.executable, "-c", code], capture_output=True, text=True)
    assert f"OutputError: Cannot write {path}: it is protected against writing." in ran.stderr
    assert path.read_text() == "kept"
    assert [file.name for file in tmp_path.iterdir()] == ["mine"]


def test_a_long_name_is_no_matter_as_long_as_the_disk_takes_it(cache, tmp_path):
    cache.save(tmp_path / ("x" * 255))
    assert re.search(r"Cannot write .*x: File name too long\.$", refused(cache, tmp_path / ("x" * 256)))


def test_a_file_is_as_open_as_any_other_that_the_user_makes(cache, tmp_path):
    (tmp_path / "other").touch()
    cache.save(tmp_path / "trace")
    assert (tmp_path / "trace").stat().st_mode == (tmp_path / "other").stat().st_mode
