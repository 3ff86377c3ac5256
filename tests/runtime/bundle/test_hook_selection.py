"""Names, globs and functions that select hook points, and what is said of those that select none."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

import pytest
from checkpoints import config_entries, family
from hypothesis import given
from hypothesis import strategies as st

from onnxlens.runtime._bundle.selection import select
from onnxlens.runtime.errors import HookPointError

NAMES = tuple(point.name for point in family(config_entries(n_layer=12)).description().hook_points)


def refused(names_filter) -> str:
    with pytest.raises(HookPointError) as caught:
        select(names_filter, NAMES)
    return str(caught.value)


def test_the_table_is_that_of_the_design():
    assert len(NAMES) == 2 + 12 * 18 + 2 == len(set(NAMES))
    block = [name.removeprefix("blocks.3.") for name in NAMES if name.startswith("blocks.3.")]
    attention = ["hook_q", "hook_k", "hook_v", "hook_attn_scores", "hook_pattern", "hook_z", "hook_result"]
    assert block == [
        "hook_resid_pre",
        "ln1.hook_scale",
        "ln1.hook_normalized",
        *(f"attn.{name}" for name in attention),
        "hook_attn_out",
        "hook_resid_mid",
        "ln2.hook_scale",
        "ln2.hook_normalized",
        "mlp.hook_pre",
        "mlp.hook_post",
        "hook_mlp_out",
        "hook_resid_post",
    ]
    assert NAMES[:2] == ("hook_embed", "hook_pos_embed")
    assert NAMES[-2:] == ("ln_final.hook_scale", "ln_final.hook_normalized")
    assert not [name for name in NAMES if name.startswith("present") or ".key" in name or ".value" in name]


def test_a_name_selects_itself():
    assert select("blocks.11.attn.hook_q", NAMES) == ("blocks.11.attn.hook_q",)


@pytest.mark.parametrize(
    ("pattern", "count"),
    [
        ("*", len(NAMES)),
        ("blocks.*.attn.hook_pattern", 12),
        ("blocks.[0-2].hook_resid_p*", 6),
        ("blocks.?.mlp.hook_post", 10),
        ("blocks.1[!0].attn.hook_[qkv]", 3),
        ("*hook_scale", 25),
    ],
)
def test_globs_work_as_in_the_shell(pattern, count):
    assert len(select(pattern, NAMES)) == count


def test_several_patterns_give_the_union_in_the_order_of_computation():
    found = select(["ln_final.*", "hook_embed", "*.hook_scale", "hook_embed"], NAMES)
    assert found == tuple(name for name in NAMES if name == "hook_embed" or "ln_final" in name or "hook_scale" in name)


@given(st.sets(st.sampled_from(NAMES), min_size=1))
def test_any_set_of_names_selects_just_these(names):
    assert set(select(names, NAMES)) == names
    assert select(names.__contains__, NAMES) == select(sorted(names), NAMES)


@given(st.text(alphabet="bhlockskn_.*?[]0123-!", max_size=12))
def test_any_pattern_selects_what_fnmatch_says_or_is_an_error_that_repeats_it(pattern):
    expected = tuple(name for name in NAMES if fnmatchcase(name, pattern))
    if expected:
        assert select(pattern, NAMES) == expected
    else:
        assert repr(pattern) in refused(pattern)


def test_a_block_out_of_range_is_named_in_the_error():
    assert refused("blocks.12.attn.hook_q").startswith(
        "Unknown hook point 'blocks.12.attn.hook_q': this model has blocks 0 to 11. "
        "Did you mean 'blocks.11.attn.hook_q'?"
    )


def test_a_glob_in_a_block_out_of_range_says_so_too():
    text = refused("blocks.40.attn.*")
    assert text.startswith("No hook point matches 'blocks.40.attn.*': this model has blocks 0 to 11.")


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("blocks.0.attn.hook_patern", "blocks.0.attn.hook_pattern"),
        ("hook_embedding", "hook_embed"),
        ("blocks.3.hook_residual_post", "blocks.3.hook_resid_post"),
        ("ln_final.hook_normalised", "ln_final.hook_normalized"),
    ],
)
def test_an_unknown_name_gets_the_nearest(name, nearest):
    text = refused(name)
    assert text.startswith(f"Unknown hook point {name!r}. Did you mean {nearest!r}")
    assert text.endswith("See 'onnxlens hooks' for all names.")


@pytest.mark.parametrize(
    ("part", "first", "glob", "count"),
    [
        ("hook_q", "blocks.0.attn.hook_q", "*hook_q", 12),
        ("pattern", "blocks.0.attn.hook_pattern", "*pattern", 12),
        ("mlp", "blocks.0.mlp.hook_pre", "*mlp*", 36),
    ],
)
def test_a_part_of_a_name_gets_a_glob(part, first, glob, count):
    text = refused(part)
    assert f"Did you mean {first!r}, or {glob!r} for all {count} of that kind?" in text
    assert len(select(glob, NAMES)) == count


@pytest.mark.parametrize("name", ["hook_pos_", "hook_emb", "pos_embed"])
def test_a_part_of_one_name_gets_no_glob(name):
    text = refused(name)
    assert re.search(r"Did you mean 'hook_\w+'\? See", text)
    assert "of that kind" not in text


@pytest.mark.parametrize(
    ("pattern", "meant"),
    [
        ("block.*", "blocks.*"),
        ("Blocks.*", "blocks.*"),
        ("layers.3.*", "blocks.3.*"),
        ("block.3.atn.hook_q", "blocks.3.attn.hook_q"),
        ("blocks.*.attention.hook_z", "blocks.*.attn.hook_z"),
        ("blocks.99.*", "blocks.11.*"),
    ],
)
def test_parts_that_are_nearly_right_are_corrected(pattern, meant):
    assert f"Did you mean {meant!r}?" in refused(pattern)
    assert select(meant, NAMES)


@pytest.mark.parametrize("pattern", ["[" * 20_000, "x" * 1_000_000])
def test_an_endless_pattern_is_refused_at_once(pattern):
    text = refused(pattern)
    assert text == f"A pattern of {len(pattern):,} characters is longer than any hook point's name."


def test_a_name_like_nothing_gets_no_suggestion():
    assert refused("xyz") == "Unknown hook point 'xyz'. See 'onnxlens hooks' for all names."


def test_one_wrong_name_among_right_ones_is_an_error():
    assert "'hook_embbed'" in refused(["hook_embed", "hook_embbed"])


@pytest.mark.parametrize("empty", [[], (), set()])
def test_an_empty_list_is_an_error(empty):
    assert refused(empty).startswith("No hook point was named; give a name or a pattern")


def test_a_function_that_chooses_none_is_an_error():
    count = len(NAMES)
    assert refused(lambda name: False) == f"The function given as names_filter selects none of the {count} hook points."


@pytest.mark.parametrize("other", [3, [3], [None], b"x"])
def test_something_else_than_text_is_an_error(other):
    assert refused(other).startswith("Hook points are named by text: a name, a glob, or a list of them, not [")


def test_errors_of_a_runner_are_about_its_own_model(runner):
    with pytest.raises(HookPointError, match=re.escape("'blocks.2.hook_resid_pre': this model has blocks 0 to 1.")):
        runner("base").run([1], names_filter="blocks.2.hook_resid_pre")


@pytest.mark.parametrize("name", ["base", "wide", "untied", "scaled"])
def test_stated_shapes_are_the_true_ones(runner, name):
    model = runner(name)
    cache = model.run(np_ids(2, 4)).kv_cache
    found = model.run(np_ids(2, 3), names_filter="*", kv_cache=cache).activations
    for point in model.hook_points:
        assert found[point.name].shape == point.shape(model.config, batch=2, new=3, past=4), point.name


def np_ids(batch: int, length: int) -> list[list[int]]:
    return [[7 + row + position for position in range(length)] for row in range(batch)]


@pytest.mark.parametrize(
    ("names_filter", "names"),
    [
        (("pattern", 3), ("blocks.3.attn.hook_pattern",)),
        (("resid_post", -1), ("blocks.11.hook_resid_post",)),
        (("scale", 0, "ln2"), ("blocks.0.ln2.hook_scale",)),
        ([("q", 0), "hook_embed", ("k", 1)], ("hook_embed", "blocks.0.attn.hook_q", "blocks.1.attn.hook_k")),
        (("hook_embed", "hook_pos_embed"), ("hook_embed", "hook_pos_embed")),  # two names, not a shorthand
    ],
)
def test_a_tuple_of_a_short_name_and_a_block_selects_as_it_does_in_a_cache(names_filter, names):
    assert select(names_filter, NAMES) == names


def test_a_shorthand_of_a_block_that_is_not_there_is_an_error():
    assert refused(("pattern", 12)) == "There is no block 12: this model has blocks 0 to 11."
    assert "is not short for any hook point" in refused([("nonsense", 0)])
