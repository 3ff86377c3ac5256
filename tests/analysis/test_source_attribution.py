"""The effects of heads by source token add up to their direct effects."""

from __future__ import annotations

import numpy as np
import pytest
from yardstick import close

import onnxlens
from onnxlens import Intervention
from onnxlens.analysis import attribute_logit, attribute_sources
from onnxlens.runtime.errors import InputError

TEXT = "the cat sat on the mat"


@pytest.mark.parametrize("name", ["base", "llama"])
@pytest.mark.parametrize(("against", "position"), [(None, -1), (7, 2)])
def test_sources_add_up_to_the_effect_of_each_head(bundle, name, against, position):
    with onnxlens.load(bundle(name), provider="cpu", threads=1) as lens:
        found = attribute_sources(lens, TEXT, 5, against, position=position)
        heads = attribute_logit(lens, TEXT, 5, against, position=position)
        assert found.values.shape == (*heads.heads.shape, len(found.tokens))
        assert (found.token, found.against, found.position) == (5, against, position % len(found.tokens))
        close(found.values.sum(axis=-1), heads.heads, scale=np.abs(found.values).sum(axis=-1).max())
        assert not found.values[..., found.position + 1 :].any()  # no head reads later tokens


def test_sources_are_the_formula_for_one_head_and_token(bundle):
    with onnxlens.load(bundle("base"), provider="cpu", threads=1) as lens:
        found = attribute_sources(lens, TEXT, 5)
        _, cache = lens.run_with_cache(TEXT)
        layer, head, key = 1, 2, 3
        moved = cache["v", layer][0, key, head] @ lens.W_O[layer, head]  # [D]
        direction = lens.W_U[:, 5] * lens.weights["ln_final.w"]
        scale = cache["ln_final.hook_scale"][0, -1, 0]
        expected = cache["pattern", layer][0, head, -1, key] * ((moved - moved.mean()) / scale) @ direction
        close(found.values[layer, head, key], expected, scale=np.abs(found.values).max())


def test_a_scaled_head_reads_less_and_a_replaced_one_nothing(bundle):
    with onnxlens.load(bundle("base"), provider="cpu", threads=1) as lens:
        edits = [
            Intervention.scale("blocks.0.attn.hook_z", 0.5, heads=0),
            Intervention.zero("blocks.0.attn.hook_z", heads=1),
            Intervention.replace("blocks.1.attn.hook_z", np.arange(lens.config.d_head), heads=2),
        ]
        with lens.hooks(interventions=edits):
            found = attribute_sources(lens, TEXT, 5).values
            heads = attribute_logit(lens, TEXT, 5).heads
        close(found[0].sum(axis=-1), heads[0], scale=np.abs(found).max())
        assert found[0, 0].any() and not found[0, 1].any() and not found[1, 2].any()


@pytest.mark.parametrize("position", [6, -7, 1.5])
def test_a_position_outside_of_the_text_is_an_error(bundle, position):
    with onnxlens.load(bundle("base"), provider="cpu", threads=1) as lens:
        length = lens.to_tokens(TEXT).shape[1]
        with pytest.raises(InputError, match=f"^position must be a whole number from {-length} to {length - 1}, not "):
            attribute_sources(lens, TEXT, position=position * 100)
