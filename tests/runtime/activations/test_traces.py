"""Traces on disk: what comes back is what was saved, and whatever is no whole trace of this version is refused."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from checkpoints import config_entries, family
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from readings import reading
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import onnxlens
from onnxlens._catalog import SHIPPED, places
from onnxlens.runtime._activations.cache import ActivationCache
from onnxlens.runtime._activations.trace import open_trace
from onnxlens.runtime._bundle.bundle import Bundle
from onnxlens.runtime._bundle.model_facts import facts_of
from onnxlens.runtime.errors import InputError, OutputError, TraceError

TOKENS = ["the", " cat", "\n", "\N{SNOWMAN}", "<b>", "", "\ufffd"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "trace.safetensors"
    reading("base", batch=1).cache.save(path, str_tokens=TOKENS)
    return path


def metadata(path: Path) -> dict[str, str]:
    with safe_open(path, "numpy") as file:
        return file.metadata()


def rewrite(path: Path, **changes: str | None) -> None:
    texts = {**metadata(path), **changes}
    tensors = {name: value.copy() for name, value in load_file(path).items()}
    save_file(tensors, path, {key: value for key, value in texts.items() if value is not None})


def refused(path: Path, **options) -> str:
    with pytest.raises(TraceError) as caught:
        open_trace(path, **options)
    return str(caught.value)


@pytest.mark.parametrize("padded", [False, True])
def test_the_round_trip_is_exact(tmp_path, padded):
    cache = reading("wide", padded=padded).cache
    cache.save(tmp_path / "trace")
    back = onnxlens.open_trace(tmp_path / "trace", verify=True)
    assert list(back) == list(cache)
    for name, value in cache.items():
        assert back[name].dtype == value.dtype
        assert back[name].tobytes() == value.tobytes(), name
    np.testing.assert_array_equal(back.tokens, cache.tokens)
    np.testing.assert_array_equal(back.attention_mask, cache.attention_mask)
    assert (back.model, back.model_hash, back.positions, back.has_batch_dim, back.str_tokens) == (
        "wide", "hash of wide", None, True, None,
    )  # fmt: skip
    assert back.facts.config == cache.facts.config


def test_the_header_says_what_it_is(path):
    import onnxruntime

    texts = metadata(path)
    assert texts["format"] == "onnxlens.trace.2"
    assert texts["model"] == "base"
    assert texts["model_hash"] == "hash of base"
    assert json.loads(texts["description"])["cfg"]["n_layers"] == 2
    assert json.loads(texts["made_with"]) == {"onnxlens": onnxlens.__version__, "onnxruntime": onnxruntime.__version__}
    assert json.loads(texts["hook_points"]) == list(reading("base", batch=1).cache)
    assert json.loads(texts["positions"]) is None
    assert json.loads(texts["has_batch_dim"]) is True
    assert json.loads(texts["str_tokens"]) == TOKENS


def test_all_that_a_cache_knows_comes_back_and_goes_on(tmp_path):
    given = reading("base", batch=1).cache
    cache = ActivationCache(
        {name: value[:, [1, 4]] for name, value in given.items() if "resid" in name},
        given.tokens,
        model="mine",
        positions=[1, 4],
        str_tokens=TOKENS,
        made_with={"onnxlens": "0.0.1", "onnxruntime": "1.2.3"},
    ).remove_batch_dim()
    cache.save(tmp_path / "one")
    open_trace(tmp_path / "one").save(tmp_path / "two")
    back = open_trace(tmp_path / "two")
    assert back["resid_post", 1].shape == (2, 32)
    assert (back.positions, back.has_batch_dim, back.str_tokens, back.model) == ([1, 4], False, TOKENS, "mine")
    assert back.made_with == {"onnxlens": "0.0.1", "onnxruntime": "1.2.3"}
    assert back.facts is None
    assert back.model_hash == ""


def test_arrays_are_memory_mapped_and_read_only(path):
    cache = open_trace(path)
    for value in (*cache.values(), cache.tokens):
        assert isinstance(value, np.memmap)
        assert not value.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        cache["embed"][0] = 0


def test_a_trace_counts_from_the_end_and_adds_up_where_no_weights_are_needed(path):
    cache = open_trace(path)
    assert cache["resid_post", -1] is cache["blocks.1.hook_resid_post"]
    np.testing.assert_array_equal(cache.decompose_resid(), reading("base", batch=1).cache.decompose_resid())
    with pytest.raises(
        InputError, match=r"^logit_bias needs the model's weights, which this cache does not have; attach"
    ):
        cache.logit_bias(1)


def test_with_its_model_a_trace_does_all_that_a_cache_does(path):
    cache = reading("base", batch=1).cache
    back = open_trace(path, model=cache.facts)
    np.testing.assert_array_equal(
        back.logit_attrs(back.decompose_resid(), "the"), cache.logit_attrs(cache.decompose_resid(), "the")
    )
    np.testing.assert_array_equal(back.folded()["v", 0], cache.folded()["v", 0])


def test_a_trace_of_another_model_says_both(path):
    other = reading("wide").cache.facts
    expected = (
        "These activations come from the model 'base' (hash of base), not of 'wide' (hash of wide): "
        "weights or graph differ."
    )
    assert refused(path, model=other) == expected
    with pytest.raises(TraceError) as caught:
        open_trace(path).check_model(other)
    assert str(caught.value) == expected
    open_trace(path).check_model(reading("base").cache.facts)


def test_activations_of_no_model_or_folded_ones_are_refused_for_a_model():
    cache = reading("base").cache
    with pytest.raises(
        TraceError, match=r"^It is not known which model these activations come from; 'base' was asked for\.$"
    ):
        ActivationCache({}, cache.tokens).check_model(cache.facts)
    with pytest.raises(
        TraceError, match=r"^These activations are a folded view; the model computes the raw ones\. Use the"
    ):
        cache.folded().check_model(cache.facts)
    with pytest.raises(InputError, match=r"^Expected a Lens, Runner or Bundle, not str\.$"):
        cache.check_model("base")


def test_a_bundle_is_a_model():
    bundle = Bundle(places()["shipped"] / SHIPPED)
    assert facts_of(bundle) is bundle.facts
    assert bundle.facts.token(" the") == bundle.tokenizer.encode(" the")[0]


def test_what_is_not_there_or_no_file(tmp_path):
    assert refused(tmp_path / "no") == f"There is no trace {tmp_path / 'no'}."
    assert refused(tmp_path) == f"{tmp_path} is a folder, not a trace."
    os.mkfifo(tmp_path / "pipe")
    assert refused(tmp_path / "pipe") == f"{tmp_path / 'pipe'} is not a regular file. Copy it again."
    assert refused(Path("a\0b")).startswith(r"Cannot read the trace a\x00b: ")


@pytest.mark.parametrize(
    "content", [b"", b"1234567", b"\xff" * 8, b"\x02" + b"\0" * 7 + b"[]", b"PK\x03\x04" + b"x" * 99]
)
def test_what_is_no_safetensors_file(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    assert refused(tmp_path / "x") == (
        f"{tmp_path / 'x'} is not a trace, or is damaged: it has no safetensors header. 'onnxlens trace' and "
        "cache.save write traces."
    )


def test_a_foreign_safetensors_file_is_named(tmp_path):
    save_file({"x": np.zeros(3, np.float32)}, tmp_path / "x", {"format": "pt"})
    assert refused(tmp_path / "x") == (
        f"{tmp_path / 'x'} is a safetensors file, but not a trace of onnxlens: its header does not say "
        "'onnxlens.trace.2' as its format."
    )
    assert "but not a trace of onnxlens" in refused(places()["shipped"] / SHIPPED / "onnx/model.onnx_data")
    save_file({"x": np.zeros(3, np.int8)}, tmp_path / "y")
    assert refused(tmp_path / "y") == f"{tmp_path / 'y'} is not a trace of onnxlens: it has the tensor 'x' as 'I8'."


def test_another_version_is_named(path):
    rewrite(path, format="onnxlens.trace.1")
    assert refused(path) == (
        f"{path} is a trace of format 'onnxlens.trace.1', and this onnxlens reads 'onnxlens.trace.2'. Open it with the "
        "onnxlens that wrote it, or make it again."
    )


def test_a_truncated_file_says_both_sizes(path):
    data = path.read_bytes()
    path.write_bytes(data[:-5])
    assert refused(path) == (
        f"{path} is truncated: it has {len(data) - 5} bytes, its header promises {len(data)}. Copy it again."
    )
    path.write_bytes(data + b"more")
    assert refused(path) == (
        f"{path} is damaged: it has {len(data) + 4} bytes, its header describes {len(data)}. Copy it again."
    )


@given(cut=st.integers(0, 400))
def test_a_file_cut_anywhere_is_refused_by_name(tmp_path_factory, cut):
    path = tmp_path_factory.getbasetemp() / "cut"
    reading("base", batch=1, length=1).cache.save(path)
    size = path.stat().st_size
    os.truncate(path, size * cut // 401)
    assert str(path) in refused(path)


DESCRIPTION = json.dumps(family(config_entries()).description().to_dict())
DAMAGE = [
    ({"hook_points": None}, "'hook_points' is missing"),
    ({"hook_points": '["hook_embed"]'}, "'hook_points' does not list the tensors"),
    ({"hook_points": "{"}, "Expecting property name"),
    ({"hook_points": "3"}, "'hook_points' must be a list"),
    ({"positions": "[1.5]"}, "'positions' must be whole numbers"),
    ({"positions": None}, "'positions' is missing"),
    ({"has_batch_dim": "1"}, "'has_batch_dim' must be a bool"),
    ({"made_with": "[]"}, "'made_with' must be a dict"),
    ({"str_tokens": "[1]"}, "'str_tokens' must be texts"),
    ({"description": "[]"}, "'description' must be a dict"),
    ({"description": "{}"}, "'cfg' is missing"),
    (
        {"description": DESCRIPTION.replace('"n_layers": 2', '"n_layers": 0')},
        "'cfg' in 'description': 'n_layers' must be a",
    ),
    ({"description": DESCRIPTION.replace('"d_head"', '"d_hand"')}, "'cfg' in 'description' has an entry 'd_hand'"),
    (
        {"description": DESCRIPTION.replace('"axes": ["batch", "pos", "one"]', '"axes": ["batch", "one"]')},
        "In 'description', the hook point 'blocks.0.ln1.hook_scale' cannot be used: its axes are 'batch', 'one'",
    ),
    (
        {"description": DESCRIPTION.replace('"kind": "LN"', '"kind": "XN"')},
        "In 'description', the hook table cannot be used: 'blocks.0.ln1' is of an unknown kind",
    ),
    ({"model": None}, "'model' is missing"),
]


def rewrite_array(path: Path, name: str, array: np.ndarray) -> None:
    texts = metadata(path)
    tensors = {name: value.copy() for name, value in load_file(path).items()}
    save_file({**tensors, name: array}, path, texts)


@pytest.mark.parametrize("with_config", [True, False], ids=["config", "alone"])
@pytest.mark.parametrize(
    ("name", "array", "detail"),
    [
        ("hook_embed", np.zeros((1, 7, 31), np.float32), "has shape [1, 7, 31], expected [1, 7, 32]"),
        ("hook_embed", np.zeros((1, 6, 32), np.float32), "has shape [1, 6, 32], expected [1, 7, 32]"),
        ("hook_embed", np.zeros((7, 32), np.float32), "has shape [7, 32], expected [1, 7, 32]"),
        ("hook_embed", np.zeros((1, 7, 32), np.int64), "is of int64, not of floating-point numbers"),
        ("blocks.1.attn.hook_z", np.zeros((1, 7, 2, 16), np.float32), "has shape [1, 7, 2, 16], expected [1, 7, 4, 8]"),
        ("blocks.1.attn.hook_pattern", np.zeros((1, 4, 7, 6), np.float32), "expected [1, 4, 7, 7]"),
        ("blocks.0.ln1.hook_scale", np.zeros((1, 7, 2), np.float32), "expected [1, 7, 1]"),
    ],
)
def test_arrays_that_contradict_each_other_or_the_hook_table_are_noticed_when_it_is_opened(
    path, name, array, detail, with_config
):
    rewrite_array(path, name, array)
    if not with_config:
        rewrite(path, description=None)
        open_trace(path)  # what the axes are is not known then
        return
    assert detail in refused(path)


@pytest.mark.parametrize(
    ("name", "array", "detail"),
    [
        ("tokens", np.full((1, 7), 300), "'tokens' has ids that the model does not have"),
        ("tokens", np.full((1, 7), -1), "'tokens' has ids that the model does not have"),
        ("attention_mask", np.full((1, 7), 2), "'attention_mask' holds other numbers than 0 and 1"),
        ("tokens", np.zeros((1, 7), np.float64), "'tokens' and 'attention_mask' are not [batch, positions] of int64"),
        ("blocks.2.hook_resid_pre", np.zeros((1, 7, 32), np.float32), "'hook_points' does not list the tensors"),
    ],
)
def test_tokens_that_cannot_be_are_noticed(path, name, array, detail):
    rewrite_array(path, name, array)
    assert detail in refused(path)


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"hook_points": "[1, null]"}, "'hook_points' must be texts"),
        ({"positions": "[7]"}, "'positions' has positions outside of the 7 tokens"),
        ({"positions": "[-1]"}, "'positions' has positions outside of the 7 tokens"),
        ({"str_tokens": '["a"]'}, "'str_tokens' has 1 texts for 7 tokens"),
        ({"str_tokens": '["\\ud800"]'}, "'utf-8' codec can't encode"),
        ({"called": "[3]"}, "'called' must be texts"),
        ({"applied": '[{"intervention": "a", "operation": "b", "hook": "c"}]'}, "an entry of 'applied'"),
        ({"made_with": "[" * 100_000}, "maximum recursion depth"),
        ({"description": '{"cfg": ' + "9" * 5000 + "}"}, "Exceeds the limit"),
        (
            {"description": DESCRIPTION.replace('"n_layers": 2', '"n_layers": 1000000000')},
            "'cfg' in 'description' has 1000000000 blocks, and no model has more than 10,000",
        ),
        (
            {"description": DESCRIPTION.replace('"n_layers": 2', '"n_layers": 1')},
            "'blocks.1.hook_resid_pre' is not a hook point of a model of 1 blocks",
        ),
    ],
    ids=lambda value: str(value)[:30],
)
def test_texts_that_contradict_the_arrays_are_noticed(path, changes, detail):
    rewrite(path, **changes)
    text = refused(path)
    assert detail in text
    assert len(text) < 1000


def test_half_a_character_in_the_header_is_damage(path):
    content = path.read_bytes()
    place = content.index(b'"model":"base"')
    path.write_bytes(content[:place] + b'"model":"\\ud8"' + content[place + 14 :])
    assert "has no safetensors header" in refused(path)


def test_what_could_not_be_opened_again_is_not_written(tmp_path):
    cache = reading("base", batch=1).cache
    changed = {**cache, "hook_embed": cache["hook_embed"][:, :3]}
    wrong = onnxlens.ActivationCache(changed, cache.tokens, facts=cache.facts)
    with pytest.raises(OutputError, match=r"the cache is not consistent: .* has shape"):
        wrong.save(tmp_path / "trace")
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize(("changes", "detail"), DAMAGE, ids=[detail for _, detail in DAMAGE])
def test_a_header_that_is_not_whole_says_what_is_wrong(path, changes, detail):
    rewrite(path, **changes)
    text = refused(path)
    assert text.startswith(f"The header of the trace {path} is damaged: {detail}")
    assert text.endswith(". Make the trace again.")


def test_a_flipped_bit_in_a_value_is_found_where_asked_for(path):
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    open_trace(path)
    assert refused(path, verify=True) == (
        f"The trace {path} is damaged: the SHA-256 of its values differs from the header's. Make the trace again."
    )


@given(
    value=arrays(
        np.float32, array_shapes(min_dims=0, min_side=0, max_dims=4, max_side=4), elements=st.floats(width=32)
    ),
    transpose=st.booleans(),
)
def test_any_array_makes_the_round_trip(tmp_path_factory, value, transpose):
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    value = value.T if transpose else value
    ActivationCache({"x": value}, np.array([[1]])).save(path)
    back = open_trace(path, verify=True)["x"]
    assert back.shape == value.shape
    assert back.tobytes() == value.tobytes()


def test_a_notebook_shows_what_was_read_and_nothing_that_runs(path):
    html = open_trace(path)._repr_html_()
    assert "<b>ActivationCache</b> base; 40 hook points, " in html
    assert "; 1 row of 7 tokens<br>" in html
    assert "<td>blocks.1.attn.hook_pattern</td><td>batch 1, head 4, query pos 7, key pos 7</td><td>float32</td>" in html
    assert "<code>&#x27;&lt;b&gt;&#x27;</code>" in html
    assert "<b>&" not in html.replace("<b>Act", "")
    assert html.count("<tr>") == 41
    evil = ActivationCache({"<script>x": np.zeros((1, 2))}, np.zeros((1, 2), np.int64), model="<img onerror=x>")
    html = evil.remove_batch_dim()._repr_html_()
    assert "<script" not in html and "<img" not in html
    assert "<td>&lt;script&gt;x</td><td>2</td><td>float64</td><td>16 bytes</td>" in html
    folded = reading("base", batch=2).cache.folded()._repr_html_()
    assert "folded view of base; 40 hook points" in folded
    assert re.search(r"; 2 rows of 7 tokens<table>", folded)


class Frame(dict):
    """Enough of a pandas DataFrame to see what it is made from."""


def test_a_table_has_a_row_for_each_number(path, monkeypatch):
    import sys
    from types import SimpleNamespace

    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=Frame))
    cache = open_trace(path)
    frame = cache.to_dataframe(("pattern", 1))
    assert list(frame) == ["batch", "head", "query_pos", "query_token", "key_pos", "key_token", "value"]
    for row in (0, 60, 195):
        at = tuple(int(frame[axis][row]) for axis in ("batch", "head", "query_pos", "key_pos"))
        assert frame["value"][row] == cache["pattern", 1][at]
        assert frame["query_token"][row] == TOKENS[at[2]]
        assert frame["key_token"][row] == TOKENS[at[3]]
    assert {len(column) for column in frame.values()} == {196}
    assert list(cache.to_dataframe("scale")) == ["batch", "pos", "token", "value"]
    cache = ActivationCache(
        {"hook_embed": np.arange(6.0).reshape(1, 2, 3)}, np.zeros((1, 9), np.int64), positions=[4, 8], facts=cache.facts
    ).remove_batch_dim()
    frame = cache.to_dataframe("embed")
    assert {key: list(column) for key, column in frame.items()} == {
        "pos": [4, 4, 4, 8, 8, 8], "d_model": [0, 1, 2, 0, 1, 2], "value": [0, 1, 2, 3, 4, 5],
    }  # fmt: skip
    of_nobody = ActivationCache({"my.x": np.arange(2.0)}, np.zeros((1, 1), np.int64)).to_dataframe("my.x")
    assert list(of_nobody) == ["axis_0", "value"]


def test_without_pandas_a_table_says_what_is_missing(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InputError) as caught:
        reading().cache.to_dataframe("embed")
    assert str(caught.value) == "to_dataframe needs pandas, which is not installed: pip install pandas."


def test_the_batch_axis_goes_where_there_is_one_row():
    cache = reading(batch=1).cache
    before = dict(cache)
    assert cache.remove_batch_dim() is cache
    assert cache.remove_batch_dim()["embed"].shape == (7, 32)
    for name, value in before.items():
        np.testing.assert_array_equal(cache[name], value[0])
    assert cache.tokens.shape == (1, 7)
    with pytest.raises(InputError, match=r"^The batch axis can be removed from one row, and this cache has 2\.$"):
        reading(batch=2).cache.remove_batch_dim()
