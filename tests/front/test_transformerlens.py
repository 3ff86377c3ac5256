"""What users of TransformerLens write by habit: it works, with the numbers of its formulas, or says what to use."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from yardstick import DOUBLE, close

import onnxlens
from onnxlens import utils
from onnxlens._lens import Lens
from onnxlens._transformerlens import _ATTRIBUTES, UTILITIES
from onnxlens.runtime._activations.factored_matrix import FactoredMatrix, composition_scores
from onnxlens.runtime.errors import HookPointError, InputError

TEXT = "Once upon a time, there was a little girl"


@pytest.fixture(scope="module")
def model() -> Lens:
    return onnxlens.load(provider="cpu", threads=1)


HABITS = """
model.cfg
model.cfg.n_layers
model.cfg.n_heads
model.cfg.d_model
model.cfg.d_head
model.cfg.d_mlp
model.cfg.d_vocab
model.cfg.n_ctx
model.cfg.act_fn
model.cfg.eps
model.cfg.device
model.cfg.model_name
model.cfg.normalization_type
model.cfg.positional_embedding_type
model.cfg.to_dict()
model(text)
model(tokens)
model(tokens, return_type="logits")
model(text, return_type="loss")
model(text, return_type="loss", loss_per_token=True)
model(text, return_type="both")
model(text, prepend_bos=True)
model(["Once", "upon a time"], return_type="loss")
model(tokens, stop_at_layer=1)
model.to_tokens(text)
model.to_tokens(text, prepend_bos=True)
model.to_tokens([text, "Once"], prepend_bos=False)
model.to_str_tokens(text)
model.to_str_tokens(tokens)
model.to_str_tokens(tokens[0])
model.to_str_tokens([text, "Once"])
model.to_str_tokens(text, prepend_bos=True)
model.to_string(tokens)
model.to_string(tokens[0])
model.to_string([1, 2, 3])
model.to_single_token(" time")
model.to_single_str_token(259)
model.get_token_position(" time", text)
model.get_token_position(" a", text, mode="last")
model.get_token_position(" time", text, prepend_bos=True)
model.get_token_position(model.to_single_token(" time"), tokens)
model.tokens_to_residual_directions(" time")
model.tokens_to_residual_directions(259)
model.tokens_to_residual_directions(tokens)
model.all_head_labels
model.W_E
model.W_pos
model.W_U
model.b_U
model.W_E_pos
model.W_Q
model.W_K[2]
model.W_V[2, 1]
model.W_O
model.b_Q
model.b_K
model.b_V
model.b_O
model.W_in
model.b_in
model.W_out
model.b_out
model.blocks[0].attn.W_Q
model.blocks[1].attn.W_O[2]
model.blocks[1].attn.b_O
model.blocks[1].mlp.W_in
model.blocks[1].mlp.b_out
model.blocks[0].ln1.w
model.blocks[-1].ln2.b
model.ln_final.w
model.embed.W_E
model.pos_embed.W_pos
model.unembed.W_U
model.unembed.b_U
len(model.blocks)
model.QK
model.OV
model.OV[2, 1].svd()
model.QK[0].norm()
model.OV.eigenvalues
model.all_composition_scores("Q")
model.all_composition_scores("K")
model.all_composition_scores("V")
model.accumulated_bias(2)
model.accumulated_bias(2, mlp_input=True)
model.hook_dict["blocks.0.hook_resid_pre"].name
model.run_with_cache(text)
model.run_with_cache(tokens, names_filter=lambda name: name.endswith("pattern"))
model.run_with_cache(tokens, names_filter=["blocks.0.hook_resid_pre", ("pattern", 1)])
model.run_with_cache(text, remove_batch_dim=True)
model.run_with_cache(text, stop_at_layer=2)
model.run_with_cache(text, pos_slice=-1)
model.run_with_cache(text, prepend_bos=True)
cache["pattern", 0]
cache["blocks.0.attn.hook_pattern"]
cache["resid_post", -1]
cache["q", 2, "attn"]
cache["embed"]
cache["normalized", 0, "ln1"]
cache.accumulated_resid(layer=-1, incl_mid=True, pos_slice=-1, return_labels=True)
cache.decompose_resid(layer=2, return_labels=True)
cache.stack_head_results(layer=-1, return_labels=True)
cache.stack_activation("pattern")
cache.apply_ln_to_stack(cache.accumulated_resid(layer=-1), layer=-1)
cache.logit_attrs(cache.decompose_resid(), tokens=" time")
cache.keys()
cache.items()
model.run_with_hooks(text, fwd_hooks=[("blocks.0.hook_resid_pre", hook)])
model.run_with_hooks(text, fwd_hooks=[(("resid_pre", 0), hook)], return_type="loss")
model.run_with_hooks(text, fwd_hooks=[(utils.get_act_name("z", 1), hook)])
model.run_with_hooks(text, fwd_hooks=[(lambda name: name.endswith("hook_z"), hook)])
model.run_with_hooks(text, return_type="both", prepend_bos=True)
model.hooks(fwd_hooks=[("blocks.0.hook_resid_pre", hook)])
model.generate(text, max_new_tokens=2, temperature=0).text
model.generate(text, max_new_tokens=2, top_k=5, prepend_bos=True).text
model.tokenizer
utils.get_act_name("pattern", 3)
utils.get_act_name("k6")
utils.get_act_name("scale4ln1")
utils.get_act_name("resid_pre", 2)
utils.get_act_name("normalized", 1, "ln2")
utils.get_act_name("k", 2, "a")
utils.get_act_name("embed")
utils.get_act_name("blocks.0.hook_resid_pre")
utils.lm_cross_entropy_loss(model(tokens), tokens)
utils.lm_cross_entropy_loss(model(tokens), tokens, per_token=True)
utils.lm_accuracy(model(tokens), tokens)
utils.to_numpy(model.W_E)
utils.composition_scores(model.OV, model.QK)
onnxlens.FactoredMatrix(model.W_V, model.W_O)
""".strip().splitlines()


@pytest.mark.parametrize("line", HABITS)
def test_a_line_of_habit_works(model, line):
    tokens = model.to_tokens(TEXT)
    scope = {"model": model, "utils": utils, "onnxlens": onnxlens, "text": TEXT, "tokens": tokens}
    scope["hook"] = lambda activation, hook: activation
    if "cache[" in line or "cache." in line:
        scope["cache"] = model.run_with_cache(TEXT)[1]
    value = eval(line, scope)
    assert value is not None
    if isinstance(value, np.ndarray):
        assert np.isfinite(value).all() or "pattern" in line


@pytest.mark.parametrize("name", sorted(_ATTRIBUTES))
def test_what_is_not_there_says_what_to_use(model, name):
    with pytest.raises(AttributeError) as caught:
        getattr(model, name)
    assert str(caught.value) == f"Lens has no {name!r}: {_ATTRIBUTES[name]}."
    assert not hasattr(model, name)


@pytest.mark.parametrize("name", sorted(UTILITIES))
def test_helpers_that_are_not_there_say_what_to_use(name):
    with pytest.raises(AttributeError, match=r"onnxlens\.utils has no"):
        getattr(utils, name)


def test_other_attributes_get_the_nearest_name(model):
    with pytest.raises(AttributeError) as caught:
        _ = model.W_QQ
    assert str(caught.value).startswith("Lens has no attribute 'W_QQ'. Did you mean 'W_Q'")
    with pytest.raises(AttributeError, match=r"blocks\.1 has no 'atn'\. Did you mean 'attn'"):
        _ = model.blocks[1].atn
    with pytest.raises(AttributeError, match=r"read this one with lens\.run_with_cache"):
        _ = model.blocks[1].attn.hook_pattern


def test_the_loss_is_the_cross_entropy_of_each_next_token(model):
    tokens = model.to_tokens(TEXT)
    logits = model(tokens).astype(np.float64)
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = [-np.log(probabilities[0, i, token]) for i, token in enumerate(tokens[0, 1:])]
    both, loss = model(TEXT, return_type="both")
    np.testing.assert_array_equal(both, model(TEXT))
    close(loss, np.mean(expected), scale=logits)
    close(model(TEXT, return_type="loss", loss_per_token=True), [expected], scale=logits)
    assert model(TEXT, return_type=None) is None
    assert utils.lm_accuracy(model(tokens), tokens) == np.mean(logits[0, :-1].argmax(-1) == tokens[0, 1:])


def test_padding_is_left_out_of_the_loss(model):
    alone = model("Once upon a time", return_type="loss", loss_per_token=True)
    batch = model(["Once upon a time", TEXT], return_type="loss", loss_per_token=True)
    length = alone.shape[1]
    close(batch[0, -length:], alone[0])
    assert (batch[0, :-length] == 0).all()
    longer = model(TEXT, return_type="loss", loss_per_token=True)
    mean = (alone.sum() + longer.sum()) / (alone.size + longer.size)
    close(model(["Once upon a time", TEXT], return_type="loss"), mean)


def test_the_token_that_begins_a_text_can_be_put_in_front(model):
    bos = model.config.bos_token_id
    plain = model.to_tokens(TEXT)[0].tolist()
    assert model.to_tokens(TEXT, prepend_bos=True)[0].tolist() == [bos, *plain]
    assert model.to_str_tokens(TEXT, prepend_bos=True) == [model.to_single_str_token(bos), *model.to_str_tokens(TEXT)]
    np.testing.assert_array_equal(model(TEXT, prepend_bos=True), model([[bos, *plain]]))
    np.testing.assert_array_equal(model.run_with_cache(TEXT, prepend_bos=True)[0], model([[bos, *plain]]))
    assert model.predict(TEXT, prepend_bos=True).ids == [bos, *plain]
    first = model.generate([bos, *plain], max_new_tokens=3, temperature=0)
    second = model.generate(TEXT, max_new_tokens=3, temperature=0, prepend_bos=True)
    assert [token.id for token in first] == [token.id for token in second]
    with pytest.raises(InputError, match="prepend_bos is for texts"):
        model(plain, prepend_bos=True)


@pytest.mark.parametrize("token", [None, 4096])
def test_a_model_without_such_a_token_says_so(model, monkeypatch, token):
    monkeypatch.setattr(model.bundle, "config", replace(model.config, bos_token_id=token))
    with pytest.raises(InputError, match="tiny has no beginning-of-text token"):
        model.to_tokens("the cat", prepend_bos=True)


def test_a_position_is_found_by_text_and_by_id(model):
    tokens = model.to_str_tokens("the cat and the dog and the bird")
    assert model.get_token_position(" and", "the cat and the dog and the bird") == tokens.index(" and")
    last = len(tokens) - 1 - tokens[::-1].index(" and")
    assert model.get_token_position(" and", "the cat and the dog and the bird", mode="last") == last
    assert model.get_token_position(" and", "the cat and the dog", prepend_bos=True) == tokens.index(" and") + 1
    with pytest.raises(InputError, match="The token ' time' is not in the text"):
        model.get_token_position(" time", "the cat")
    with pytest.raises(InputError, match="mode must be 'first' or 'last'"):
        model.get_token_position(" and", "the cat and", mode="middle")


def test_residual_directions_are_columns_of_the_unembedding(model):
    token = model.to_single_token(" time")
    np.testing.assert_array_equal(model.tokens_to_residual_directions(" time"), model.W_U[:, token])
    directions = model.tokens_to_residual_directions(np.array([[1, 2, 3], [4, 5, 6]]))
    assert directions.shape == (2, 3, model.cfg.d_model)
    np.testing.assert_array_equal(directions[1, 2], model.W_U[:, 6])
    with pytest.raises(InputError, match="out of range"):
        model.tokens_to_residual_directions(model.cfg.d_vocab)


def test_biases_accumulate_as_blocks_add_them(model):
    expected = np.zeros(model.cfg.d_model)
    for layer in range(2):
        expected = expected + model.blocks[layer].attn.b_O + model.blocks[layer].mlp.b_out
    close(model.accumulated_bias(2), expected)
    with_attention = expected + model.blocks[2].attn.b_O
    close(model.accumulated_bias(2, mlp_input=True), with_attention)
    with pytest.raises(InputError, match=r"from 0 to 4, not 5"):
        model.accumulated_bias(5, mlp_input=True)


def test_an_added_hook_holds_until_it_is_reset(model):
    def zero(activation, hook):
        hook.ctx["seen"] = activation.shape
        activation[:] = 0

    plain = model(TEXT)
    try:
        model.add_hook(("z", 1), zero)
        changed = model(TEXT)
        expected = model.run_with_hooks(TEXT)
        np.testing.assert_array_equal(changed, expected)
        assert not np.array_equal(changed, plain)
        assert model.is_changed
        np.testing.assert_array_equal(model.predict(TEXT).logits, changed[0, -1])
        model.add_perma_hook("blocks.0.mlp.hook_post", zero)
        model.reset_hooks()
        assert model.hook_dict["blocks.1.attn.hook_z"].ctx == {}
        assert model.is_changed  # the permanent one
        permanent = model(TEXT)
        assert not np.array_equal(permanent, plain)
        assert not np.array_equal(permanent, changed)
    finally:
        model.reset_hooks(including_permanent=True)
    np.testing.assert_array_equal(model(TEXT), plain)
    without_head = model.run_with_hooks(TEXT, fwd_hooks=[(("z", 1), zero)])
    np.testing.assert_array_equal(without_head, changed)


def test_hooks_that_cannot_be_added_say_why(model):
    with pytest.raises(InputError, match=r"dir must be 'fwd', not 'bwd'; lens.grad reads gradients"):
        model.add_hook("hook_embed", lambda activation, hook: None, dir="bwd")
    with pytest.raises(HookPointError, match="blocks 0 to 4"):
        model.add_hook("blocks.9.hook_resid_pre", lambda activation, hook: None)
    assert not model.is_changed


def test_circuits_are_the_products_of_the_weights(model):
    close(model.QK.AB[2, 1], model.W_Q[2, 1].astype(np.float64) @ model.W_K[2, 1].T)
    close(model.OV.AB[2, 1], model.W_V[2, 1].astype(np.float64) @ model.W_O[2, 1])


def test_composition_is_scored_between_a_head_and_the_heads_of_later_layers(model):
    scores = model.all_composition_scores("K")
    layers, heads = model.cfg.n_layers, model.cfg.n_heads
    assert scores.shape == (layers, heads, layers, heads)
    writes = model.W_V[1, 2].astype(np.float64) @ model.W_O[1, 2]
    reads = (model.W_Q[3, 0].astype(np.float64) @ model.W_K[3, 0].T).T
    expected = np.linalg.norm(writes @ reads) / np.linalg.norm(writes) / np.linalg.norm(reads)
    close(scores[1, 2, 3, 0], expected)
    assert (scores[3, :, 3] == 0).all()
    assert (scores[3, :, 1] == 0).all()
    with pytest.raises(InputError, match="mode must be 'Q', 'K' or 'V', not 'O'"):
        model.all_composition_scores("O")


def test_a_prompt_is_tested(model, capsys):
    utils.test_prompt("Once upon a", "time", model)
    out = capsys.readouterr().out
    prediction = model.predict("Once upon a")
    time = model.to_single_token(" time")
    rank = int((prediction.logits > prediction.logits[time]).sum())
    assert f"Ranks of the answer tokens: [(' time', {rank})]" in out
    assert "Tokenized prompt: ['Once', ' upon', ' a']" in out
    assert f"{prediction.probabilities[time]:.2%} Token: | time|" in out
    utils.test_prompt("Once upon a", ["time", "dog"], model, print_details=False)
    out = capsys.readouterr().out
    assert "(' time', " in out
    assert "(' dog', " in out


class TestFactoredMatrix:
    """Every method against the product itself, in float64."""

    rng = np.random.default_rng(0)
    matrix = FactoredMatrix(rng.normal(size=(2, 3, 7, 4)), rng.normal(size=(2, 3, 4, 7)))
    product = matrix.AB

    def close(self, one, other):
        close(one, other, within=DOUBLE)

    def test_shape(self):
        assert self.matrix.shape == self.product.shape == (2, 3, 7, 7)
        assert (self.matrix.ldim, self.matrix.mdim, self.matrix.rdim, self.matrix.ndim) == (7, 4, 7, 4)

    def test_svd(self):
        u, s, v = self.matrix.svd()
        self.close((u * s[..., None, :]) @ v.swapaxes(-2, -1), self.product)
        self.close(s, np.linalg.svd(self.product)[1][..., :4])
        self.close(self.matrix.norm(), np.linalg.norm(self.product, axis=(-2, -1)))

    def test_other_factorings(self):
        even = self.matrix.make_even()
        self.close(even.AB, self.product)
        self.close(np.linalg.norm(even.A, axis=-2), np.linalg.norm(even.B, axis=-1))
        self.close(self.matrix.U @ self.matrix.collapse_l(), self.product)
        self.close(self.matrix.collapse_r() @ self.matrix.V.swapaxes(-2, -1), self.product)
        self.close(self.matrix.T.AB, self.product.swapaxes(-2, -1))

    def test_eigenvalues(self):
        found = np.sort_complex(self.matrix.eigenvalues[1, 2])
        largest = sorted(np.linalg.eigvals(self.product[1, 2]), key=abs)[-4:]
        self.close(found, np.sort_complex(np.array(largest)))

    def test_products(self):
        other, vector = self.rng.normal(size=(7, 5)), self.rng.normal(size=7)
        self.close((self.matrix @ other).AB, self.product @ other)
        self.close((other.T @ self.matrix).AB, other.T @ self.product)
        self.close(self.matrix @ vector, self.product @ vector)
        self.close(vector @ self.matrix, vector @ self.product)
        self.close((self.matrix @ self.matrix).AB, self.product @ self.product)
        self.close((2 * self.matrix).AB, 2 * self.product)

    @pytest.mark.parametrize(
        "index",
        [1, (1, 2), (0, slice(1, 3)), (..., 2, slice(None)), (1, 2, 3), (1, 2, slice(2, 5), -1), (slice(None), 0)],
    )
    def test_indices(self, index):
        found = self.matrix[index].AB
        self.close(found.squeeze(), self.product[index].squeeze())

    def test_corner_and_unsqueeze(self):
        self.close(self.matrix.get_corner(2), self.product[:2, :2, :2, :2])
        self.close(self.matrix.unsqueeze(0).AB, self.product[None])

    def test_composition_scores_are_pairwise_or_one_by_one(self):
        pairs = composition_scores(self.matrix, self.matrix)
        single = composition_scores(self.matrix, self.matrix, broadcast_dims=False)
        norm = np.linalg.norm
        first, second = self.product[0, 1], self.product[1, 2]
        self.close(pairs[0, 1, 1, 2], norm(first @ second) / norm(first) / norm(second))
        self.close(single[0, 1], pairs[0, 1, 0, 1])

    def test_shapes_that_do_not_fit_are_sentences(self):
        with pytest.raises(InputError, match=r"must be \[\.\.\., l, m\] and \[\.\.\., m, r\]"):
            FactoredMatrix(np.zeros((2, 3)), np.zeros((4, 2)))
        with pytest.raises(InputError, match="leading axes"):
            FactoredMatrix(np.zeros((2, 3, 4)), np.zeros((3, 4, 3)))
        with pytest.raises(InputError, match="Cannot multiply"):
            _ = self.matrix @ np.zeros((3, 3))
        with pytest.raises(InputError, match="too many"):
            _ = self.matrix[0, 0, 0, 0, 0]
