"""The oracle against transformers' GPT-2 in float64: two programs written apart must agree on every value."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import oracle
import pytest
from yardstick import DOUBLE, close

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SMALL = {"vocab_size": 37, "n_positions": 16, "n_embd": 12, "n_layer": 3, "n_head": 3}
NO_SPECIAL_TOKENS = {"bos_token_id": None, "eos_token_id": None}  # the defaults lie outside this vocabulary

# Each entry departs from SMALL by one switch of config.json, except the last, which sets them all.
SWITCHES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "one head": {"n_head": 1},
    "one block": {"n_layer": 1},
    "gelu": {"activation_function": "gelu"},
    "relu": {"activation_function": "relu"},
    "silu": {"activation_function": "silu"},
    "n_inner": {"n_inner": 20},
    "layer_norm_epsilon": {"layer_norm_epsilon": 0.1},
    "scores unscaled": {"scale_attn_weights": False},
    "scores by inverse layer": {"scale_attn_by_inverse_layer_idx": True},
    "reorder_and_upcast_attn": {"reorder_and_upcast_attn": True},
    "untied": {"tie_word_embeddings": False},
    "all": {
        "n_inner": 7,
        "activation_function": "silu",
        "layer_norm_epsilon": 1e-3,
        "scale_attn_weights": False,
        "scale_attn_by_inverse_layer_idx": True,
        "tie_word_embeddings": False,
    },
}

MASKS = {
    "left": np.array([[0, 0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1]]),
    "right": np.array([[1, 1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1, 0]]),
    "inside": np.array([[1, 1, 0, 1, 0, 1, 1], [0, 1, 1, 0, 1, 1, 0]]),
}

IDS = np.random.default_rng(0).integers(0, SMALL["vocab_size"], size=(2, 7))


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Models this small gain nothing from threads, which wait for each other when the machine is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make(switches: dict[str, Any], std: float = 0.5) -> tuple[Any, dict[str, Any], dict[str, np.ndarray]]:
    """Returns transformers' model in float64, its config.json and its weights by the oracle's names."""
    # Eager attention shows its pattern, but with reorder_and_upcast_attn it insists on float32, so that
    # switch is compared through the other implementation.
    attention = "sdpa" if switches.get("reorder_and_upcast_attn") else "eager"
    config = transformers.GPT2Config(**SMALL | NO_SPECIAL_TOKENS | switches, attn_implementation=attention)
    model = transformers.GPT2LMHeadModel(config).double().eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # far from the usual initialisation, under which most switches hardly matter
        for parameter in model.parameters():
            parameter.normal_(std=std, generator=generator)
    weights = {name.removeprefix("transformer."): value.numpy() for name, value in model.state_dict().items()}
    if switches.get("tie_word_embeddings", True):
        del weights["lm_head.weight"]
    return model, json.loads(config.to_json_string()), weights


def forward(model: Any, mask: np.ndarray | None = None, **options: Any) -> Any:
    """Runs transformers' model on IDS, with positions counted as the oracle counts them."""
    inputs = {"input_ids": torch.tensor(IDS)}
    if mask is not None:
        positions = np.maximum(mask.cumsum(axis=1) - 1, 0)
        inputs |= {"attention_mask": torch.tensor(mask), "position_ids": torch.tensor(positions)}
    with torch.no_grad():
        return model(**inputs, use_cache=False, **options)


@pytest.mark.parametrize("switch", SWITCHES)
def test_logits_are_those_of_transformers(switch: str) -> None:
    model, config, weights = make(SWITCHES[switch])
    close(oracle.run(config, weights, IDS)["logits"], forward(model).logits, within=DOUBLE)
    for mask in MASKS.values():
        logits = oracle.run(config, weights, IDS, mask)["logits"]
        assert np.isfinite(logits).all()
        # At a padding position transformers sees other keys than the oracle; nothing reads those positions.
        close(logits[mask == 1], forward(model, mask).logits[mask == 1], within=DOUBLE)


@pytest.mark.parametrize("switch", [*list(SWITCHES)[3:6], *list(SWITCHES)[7:10], "untied"])
def test_every_switch_changes_the_logits(switch: str) -> None:
    # Otherwise the test above could pass while the oracle ignores the switch.
    _, config, weights = make(SWITCHES[switch])
    without = {key: value for key, value in config.items() if key not in SWITCHES[switch]}
    difference = oracle.run(config, weights, IDS)["logits"] - oracle.run(without, weights, IDS)["logits"]
    assert np.abs(difference).max() > 1e-3  # where rounding in float64 makes 1e-12


def test_missing_keys_have_the_defaults_of_transformers() -> None:
    model, _, weights = make({"n_head": 12, "n_layer": 12})  # those are the defaults too
    close(oracle.run({"n_embd": 12}, weights, IDS)["logits"], forward(model).logits, within=DOUBLE)


def test_hidden_states_and_attentions_are_those_of_transformers() -> None:
    model, config, weights = make({})
    theirs = forward(model, output_hidden_states=True, output_attentions=True)
    ours = oracle.run(config, weights, IDS)
    last = SMALL["n_layer"] - 1
    for n in range(SMALL["n_layer"]):
        close(ours[f"blocks.{n}.hook_resid_pre"], theirs.hidden_states[n], within=DOUBLE)
        close(ours[f"blocks.{n}.attn.hook_pattern"], theirs.attentions[n], within=DOUBLE)
        if n < last:
            close(ours[f"blocks.{n}.hook_resid_post"], theirs.hidden_states[n + 1], within=DOUBLE)
    # transformers' last hidden state has the final layer normalisation applied.
    normed = ours["ln_final.hook_normalized"] * weights["ln_f.weight"] + weights["ln_f.bias"]
    close(normed, theirs.hidden_states[-1], within=DOUBLE)


def test_inner_values_are_those_of_the_modules_of_transformers() -> None:
    model, config, weights = make({"n_inner": 20})
    seen: dict[str, tuple[Any, Any]] = {}  # module name -> its first input, its (first) output

    def keep(name: str) -> Callable[..., None]:
        def hook(_module: Any, inputs: tuple[Any, ...], output: Any) -> None:
            seen[name] = inputs[0], output[0] if isinstance(output, tuple) else output

        return hook

    for name, module in model.transformer.named_modules():
        module.register_forward_hook(keep(name))
    forward(model)
    ours = oracle.run(config, weights, IDS)

    def normed(hook: str, norm: str) -> np.ndarray:
        return ours[f"{hook}.hook_normalized"] * weights[f"{norm}.weight"] + weights[f"{norm}.bias"]

    def scale(x: Any) -> Any:
        return torch.sqrt(x.var(dim=-1, keepdim=True, correction=0) + 1e-5)

    close(ours["hook_embed"], seen["wte"][1], within=DOUBLE)
    close(ours["hook_pos_embed"], seen["wpe"][1].expand(2, -1, -1), within=DOUBLE)
    for n in range(SMALL["n_layer"]):
        hf, block = f"h.{n}", f"blocks.{n}"
        q, k, v = seen[f"{hf}.attn.c_attn"][1].unflatten(-1, (3, SMALL["n_head"], -1)).unbind(2)
        close(ours[f"{block}.attn.hook_q"], q, within=DOUBLE)
        close(ours[f"{block}.attn.hook_k"], k, within=DOUBLE)
        close(ours[f"{block}.attn.hook_v"], v, within=DOUBLE)
        z = seen[f"{hf}.attn.c_proj"][0].unflatten(-1, (SMALL["n_head"], -1))
        close(ours[f"{block}.attn.hook_z"], z, within=DOUBLE)
        w_o = torch.tensor(weights[f"{hf}.attn.c_proj.weight"]).unflatten(0, (SMALL["n_head"], -1))
        close(ours[f"{block}.attn.hook_result"], torch.einsum("bphd,hdm->bphm", z, w_o), within=DOUBLE)
        visible = torch.ones(IDS.shape[1], IDS.shape[1]).tril().bool()
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / 2  # d_head is 4
        close(ours[f"{block}.attn.hook_attn_scores"], scores.masked_fill(~visible, -torch.inf), within=DOUBLE)
        close(ours[f"{block}.hook_attn_out"], seen[f"{hf}.attn"][1], within=DOUBLE)
        close(ours[f"{block}.hook_resid_mid"], seen[f"{hf}.ln_2"][0], within=DOUBLE)
        close(ours[f"{block}.mlp.hook_pre"], seen[f"{hf}.mlp.c_fc"][1], within=DOUBLE)
        close(ours[f"{block}.mlp.hook_post"], seen[f"{hf}.mlp.act"][1], within=DOUBLE)
        close(ours[f"{block}.hook_mlp_out"], seen[f"{hf}.mlp"][1], within=DOUBLE)
        close(ours[f"{block}.hook_resid_post"], seen[hf][1], within=DOUBLE)
        for ours_name, theirs_name in [("ln1", "ln_1"), ("ln2", "ln_2")]:
            close(normed(f"{block}.{ours_name}", f"{hf}.{theirs_name}"), seen[f"{hf}.{theirs_name}"][1], within=DOUBLE)
            close(ours[f"{block}.{ours_name}.hook_scale"], scale(seen[f"{hf}.{theirs_name}"][0]), within=DOUBLE)
    close(normed("ln_final", "ln_f"), seen["ln_f"][1], within=DOUBLE)
    close(ours["ln_final.hook_scale"], scale(seen["ln_f"][0]), within=DOUBLE)


def test_every_hook_point_is_there_in_its_shape() -> None:
    _, config, weights = make({"n_inner": 20})
    batch, length, width, heads, vocabulary = 2, 7, SMALL["n_embd"], SMALL["n_head"], SMALL["vocab_size"]
    residual, square = (batch, length, width), (batch, heads, length, length)
    head = (batch, length, heads, width // heads)
    in_block = {
        **dict.fromkeys(["hook_resid_pre", "hook_resid_mid", "hook_resid_post"], residual),
        **dict.fromkeys(["ln1.hook_scale", "ln2.hook_scale"], (batch, length, 1)),
        **dict.fromkeys(["ln1.hook_normalized", "ln2.hook_normalized"], residual),
        **dict.fromkeys(["attn.hook_q", "attn.hook_k", "attn.hook_v", "attn.hook_z"], head),
        **dict.fromkeys(["attn.hook_attn_scores", "attn.hook_pattern"], square),
        "attn.hook_result": (batch, length, heads, width),
        **dict.fromkeys(["hook_attn_out", "hook_mlp_out"], residual),
        **dict.fromkeys(["mlp.hook_pre", "mlp.hook_post"], (batch, length, 20)),
    }
    expected = {
        "hook_embed": residual,
        "hook_pos_embed": residual,
        "ln_final.hook_scale": (batch, length, 1),
        "ln_final.hook_normalized": residual,
        "logits": (batch, length, vocabulary),
    }
    expected |= {f"blocks.{n}.{name}": s for n in range(SMALL["n_layer"]) for name, s in in_block.items()}
    ours = oracle.run(config, weights, IDS)
    assert {name: value.shape for name, value in ours.items()} == expected
    assert {value.dtype for value in ours.values()} == {np.dtype(np.float64)}


@pytest.mark.parametrize("left", [True, False])
def test_padding_changes_nothing_at_the_tokens(left: bool) -> None:
    _, config, weights = make({})
    alone = oracle.run(config, weights, IDS[:1, :4])["logits"]
    padding = np.full((1, 3), 5)
    ids = np.concatenate([padding, IDS[:1, :4]] if left else [IDS[:1, :4], padding], axis=1)
    mask = np.concatenate([padding * 0, np.ones((1, 4), int)][:: 1 if left else -1], axis=1)
    padded = oracle.run(config, weights, ids, mask)["logits"]
    close(padded[:, 3:] if left else padded[:, :4], alone, within=DOUBLE)


def test_position_ids_are_followed() -> None:
    model, config, weights = make({})
    positions = np.arange(7)[None].repeat(2, axis=0) * 2
    # Without a mask, transformers takes a jump in the positions for the start of another, packed sequence.
    inputs = {"position_ids": torch.tensor(positions), "attention_mask": torch.ones(2, 7)}
    with torch.no_grad():
        theirs = model(torch.tensor(IDS), **inputs)
    close(oracle.run(config, weights, IDS, position_ids=positions)["logits"], theirs.logits, within=DOUBLE)


def test_half_precision_weights_are_computed_in_float64() -> None:
    _, config, weights = make({})
    half = {name: value.astype(np.float16) for name, value in weights.items()}
    exact = {name: value.astype(np.float64) for name, value in half.items()}
    assert (oracle.run(config, half, IDS)["logits"] == oracle.run(config, exact, IDS)["logits"]).all()


def test_greedy_is_that_of_transformers() -> None:
    model, config, weights = make({"tie_word_embeddings": False}, std=0.25)
    weights["ln_f.bias"].fill(0)  # the model's own memory; with this bias one token wins everywhere
    with torch.no_grad():
        theirs = model.generate(torch.tensor(IDS), max_new_tokens=8, do_sample=False)
    assert len({*theirs[:, 7:].flatten().tolist()}) > 2
    assert (oracle.greedy(config, weights, IDS, 8) == theirs.numpy()).all()
    assert (oracle.greedy(config, weights, IDS, 0) == IDS).all()


def test_an_unknown_activation_is_an_error() -> None:
    _, config, weights = make({})
    with pytest.raises(ValueError, match="Unknown activation_function 'mish': the oracle knows gelu,"):
        oracle.run(config | {"activation_function": "mish"}, weights, IDS)


def test_weights_of_another_size_are_an_error() -> None:
    _, config, weights = make({})
    with pytest.raises(ValueError, match=r"'h.0.mlp.c_fc.weight' has shape \(12, 48\): .* \(12, 20\)"):
        oracle.run(config | {"n_inner": 20}, weights, IDS)
