"""Short names of hook points: TransformerLens's, and an error for what names nothing."""

from __future__ import annotations

import numpy as np
import pytest
from checkpoints import config_entries, family
from hypothesis import given
from hypothesis import strategies as st
from readings import reading

from onnxlens.runtime._activations.cache import ActivationCache
from onnxlens.runtime._bundle.shorthand import full_name
from onnxlens.runtime.errors import HookPointError

# From the documentation of TransformerLens's get_act_name, and what its rules make of the others.
KNOWN = {
    ("k", 6, "a"): "blocks.6.attn.hook_k",
    ("pre", 2): "blocks.2.mlp.hook_pre",
    "embed": "hook_embed",
    "pos_embed": "hook_pos_embed",
    ("normalized", 7, "ln2"): "blocks.7.ln2.hook_normalized",
    "k6": "blocks.6.attn.hook_k",
    "scale4ln1": "blocks.4.ln1.hook_scale",
    "pre5": "blocks.5.mlp.hook_pre",
    "resid_post3": "blocks.3.hook_resid_post",
    "scale": "ln_final.hook_scale",
    "normalized": "ln_final.hook_normalized",
    ("embed",): "hook_embed",
    ("embed", None): "hook_embed",
    ("pattern", 3): "blocks.3.attn.hook_pattern",
    ("attn", 3): "blocks.3.attn.hook_pattern",
    ("attn_logits", 3): "blocks.3.attn.hook_attn_scores",
    ("query", 0): "blocks.0.attn.hook_q",
    ("key", 0): "blocks.0.attn.hook_k",
    ("value", 0): "blocks.0.attn.hook_v",
    ("mlp_pre", 0): "blocks.0.mlp.hook_pre",
    ("mlp_post", 0, "m"): "blocks.0.mlp.hook_post",
    ("z", 1, "attn"): "blocks.1.attn.hook_z",
    ("result", 1, None): "blocks.1.attn.hook_result",
    ("resid_pre", 0): "blocks.0.hook_resid_pre",
    ("resid_post", -1): "blocks.7.hook_resid_post",
    ("resid_mid", -8, "b"): "blocks.0.hook_resid_mid",
    ("attn_out", np.int64(2)): "blocks.2.hook_attn_out",
    ("scale", 0, "ln1"): "blocks.0.ln1.hook_scale",
    "blocks.0.attn.hook_q": "blocks.0.attn.hook_q",
    "hook_embed": "hook_embed",
}


@pytest.mark.parametrize(("key", "name"), KNOWN.items(), ids=map(str, KNOWN))
def test_a_shorthand_stands_for_what_it_does_in_transformerlens(key, name):
    assert full_name(key, 8) == name


def test_every_hook_point_of_a_model_has_a_shorthand():
    for point in family(config_entries(n_layer=3)).description().hook_points:
        path, _, last = point.name.rpartition(".")
        short = last.removeprefix("hook_")
        block, _, place = path.removeprefix("blocks.").partition(".")
        key = (short, int(block), place or None) if point.name.startswith("blocks") else (short,)
        assert full_name(key, 3) == point.name


ERRORS = {
    ("pattern",): "'pattern' is in every block; name one, such as ('pattern', 0).",
    "resid_post": "'resid_post' is in every block; name one, such as ('resid_post', 0).",
    ("embed", 0): "'embed' is of the whole model, not of a block; leave out the 0.",
    ("scale", 0): (
        "('scale', 0) names no hook point; there are ('scale', 0, 'ln1') and ('scale', 0, 'ln2') in the block."
    ),
    ("q", 0, "mlp"): "('q', 0, 'mlp') names no hook point; there is ('q', 0, 'attn') in the block.",
    ("pattern", 8): "There is no block 8: this model has blocks 0 to 7.",
    ("pattern", -9): "There is no block -9: this model has blocks 0 to 7.",
    "k8": "There is no block 8: this model has blocks 0 to 7.",
    ("pattern", "3"): "A block is a whole number, not '3'.",
    ("pattern", True): "A block is a whole number, not True.",
    ("patern", 3): "'patern' is not short for any hook point. Did you mean 'pattern'?",
    "?": "'?' is not short for any hook point. 'onnxlens hooks' lists all hook points.",
    (): "A hook point is named by its name or by a tuple such as ('pattern', 3) or ('scale', 0, 'ln1'), not ().",
    3: "A hook point is named by its name or by a tuple such as ('pattern', 3) or ('scale', 0, 'ln1'), not 3.",
    (3, "q"): (
        "A hook point is named by its name or by a tuple such as ('pattern', 3) or ('scale', 0, 'ln1'), not (3, 'q')."
    ),
}


@pytest.mark.parametrize(("key", "text"), ERRORS.items(), ids=map(str, ERRORS))
def test_what_names_nothing_is_an_error(key, text):
    with pytest.raises(HookPointError) as caught:
        full_name(key, 8)
    assert str(caught.value) == text


def test_the_end_is_not_known_without_the_model():
    cache = ActivationCache({"blocks.1.attn.hook_q": np.zeros((1, 2, 1, 1))}, np.zeros((1, 2), np.int64))
    assert cache["q", 1].shape == (1, 2, 1, 1)
    with pytest.raises(HookPointError) as caught:
        cache["q", -1]
    assert str(caught.value) == (
        "Block -1 is counted from the end, and how many blocks the model has is not known here; name it by its number "
        "from the start."
    )


def test_a_cache_takes_them_as_names():
    cache = reading("base", without=("0.attn.hook_q",)).cache
    for key in (("pattern", -1), "pattern1", ("attn", 1, "attn"), "blocks.1.attn.hook_pattern"):
        assert cache[key] is cache["blocks.1.attn.hook_pattern"]
        assert key in cache
        assert cache.get(key) is cache["pattern", 1]
    for key in (("q", 0), "q0", "nothing", ("scale", 0), 3, ("q", [1])):
        assert key not in cache
        assert cache.get(key) is None
    with pytest.raises(
        HookPointError, match=r"^'blocks\.0\.attn\.hook_q' was not read; this cache holds 39 hook points\."
    ):
        cache["q", 0]
    assert all("." in name or name.startswith("hook_") for name in cache)


@given(
    key=st.one_of(st.text(max_size=20), st.tuples(st.text(max_size=5), st.integers() | st.text(max_size=3) | st.none()))
)
def test_any_key_is_read_or_an_error_of_ours(key):
    cache = reading("base").cache
    if key in cache:
        assert cache[key] is cache[cache.full_name(key)]
    else:
        with pytest.raises(HookPointError):
            cache[key]
