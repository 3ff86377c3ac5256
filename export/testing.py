"""Verifies a model family: the kit for authors of families.

    from onnxlens.export.testing import check_family

It needs PyTorch, as families do.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedModel

from onnxlens.export._bundle import export
from onnxlens.export._configuration import quiet
from onnxlens.export.families.base import Family
from onnxlens.export.families.parts import ACTIVATIONS
from onnxlens.plugins._registry import Entry, Registry
from onnxlens.runtime._interventions.interventions import Intervention
from onnxlens.runtime._running.runner import Output, Runner

__all__ = ["check_family"]

# Relative to the largest value: float32 rounding stays below, and errors of a wrong formula or weight are above.
_TOLERANCE = 1e-4
_LENGTH, _NEW = 9, 8  # tokens of a text, and tokens that are generated

Array = np.ndarray


def check_family(family: type[Family], entries: Mapping[str, Any]) -> None:
    """Verifies a family on a small model with random weights.

    The model is exported, which compares logits with transformers, and every hook point with the family's own module.
    Then the runner's hook points are compared with one another, using the weights that the family names: every value
    must follow from earlier ones by the formulas of a decoder. Greedy tokens are compared with transformers', and an
    edit that changes nothing must change no bit.

    Args:
        family: the class.
        entries: entries of a config.json of a small model: a few blocks, a vocabulary of at least 300 tokens and a
            context of at least 24.

    Raises:
        AssertionError: something does not agree; the text says what.
        CheckpointError, ExportError: the family cannot be exported.
    """
    described = {**entries, "model_type": family.MODEL_TYPE}
    with tempfile.TemporaryDirectory() as scratch:
        checkpoint, target = Path(scratch) / "checkpoint", Path(scratch) / "bundle"
        reference = _write_checkpoint(family, described, checkpoint)
        bundle = export(checkpoint, target, plugins=_Only(family))
        runner = Runner(bundle, provider="cpu", threads=1)
        ids = np.random.default_rng(0).integers(1, 256, (2, _LENGTH))
        output = runner.run(ids, names_filter="*")
        _check_names(runner)
        for name, expected in _computed(runner, output):
            found = output.logits if name == "logits" else output.activations[name]
            _check(name, found, expected)
        _check_edits(runner, ids, output)
        _check_greedy(runner, ids[:1], reference)
        runner.close()


class _Only(Registry):
    """The built-in plugins, and one family."""

    def __init__(self, family: type[Family]) -> None:
        super().__init__(find=False)
        self._family = Entry("family", family.MODEL_TYPE, family, "tested", "")

    def find(self, kind: str, name: str) -> Entry | None:
        return self._family if (kind, name) == ("family", self._family.name) else super().find(kind, name)


def _write_checkpoint(family: type[Family], entries: dict[str, Any], folder: Path) -> PreTrainedModel:
    torch.manual_seed(0)
    with quiet():
        config = family.CONFIG(**{name: value for name, value in entries.items() if name != "model_type"})
        model: PreTrainedModel = family.REFERENCE._from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():  # unlike the usual initialisation, under which many errors hardly show
        for name, parameter in model.named_parameters():
            parameter.copy_(
                torch.randn_like(parameter) * 0.25 + ("norm" in name or "ln_" in name) * (parameter.ndim == 1)
            )
    with quiet():
        model.save_pretrained(folder)
    written = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**written, "model_type": family.MODEL_TYPE}), encoding="utf-8")
    bytes_only = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(bytes_only, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}', encoding="utf-8")
    return model


def _check(name: str, found: Array, expected: Array) -> None:
    finite = np.isfinite(expected)
    assert np.array_equal(np.isfinite(found), finite), f"{name} is infinite where it should not be, or the reverse."
    error = np.abs(found[finite] - expected[finite]).max(initial=0)
    largest = np.abs(expected[finite]).max(initial=1e-30)
    assert error <= _TOLERANCE * largest, (
        f"{name} does not follow from the weights and the earlier values: it is off by {error / largest:.1e} of its "
        "largest value. Check the family's description of its weights, and its module."
    )


def _check_names(runner: Runner) -> None:
    model = runner.bundle.description
    unknown = [
        name for name in (*model.residual_stream.parts, *model.residual_stream.states) if name not in model.points
    ]
    assert not unknown, f"The residual stream is described by {unknown[0]!r}, which is not a hook point."
    missing = [name for name in ("W_E", "W_U", "W_Q", "W_K", "W_V", "W_O") if name not in runner.bundle.named_weights]
    assert not missing, f"The family names no weight {missing[0]!r}."


def _check_edits(runner: Runner, ids: Array, plain: Output) -> None:
    for name in runner.hook_names:
        output = runner.run(ids, names_filter=name, interventions=[Intervention.scale(name, 1.0)])
        same = np.array_equal(output.logits, plain.logits)
        assert same, f"An edit at {name!r} that changes nothing changes the logits."
        changed = runner.run(ids, interventions=[Intervention.scale(name, 1.5)])
        assert not np.array_equal(changed.logits, plain.logits), f"The logits do not depend on {name!r}."


def _check_greedy(runner: Runner, ids: Array, reference: PreTrainedModel) -> None:
    text = ids.copy()
    for _ in range(_NEW):
        chosen = runner.run(text, logits="last").logits[:, -1].argmax(-1)
        with torch.inference_mode():
            theirs = reference(torch.from_numpy(text)).logits[:, -1].argmax(-1).numpy()
        assert np.array_equal(chosen, theirs), (
            f"After {text[0].tolist()}, transformers chooses {theirs[0]}, not {chosen[0]}."
        )
        text = np.concatenate([text, chosen[:, np.newaxis]], axis=1)


def _computed(runner: Runner, output: Output) -> Iterator[tuple[str, Array]]:
    """Hook points and logits, computed in float64 from those before them and from the weights by name."""
    model, values = runner.bundle.description, output.activations
    cfg, weights = model.cfg, runner.bundle.named_weights

    def value(name: str) -> Array:
        found: Array = values[name].astype(np.float64)
        return found

    def weight(name: str) -> Array:
        found: Array = weights[name].astype(np.float64)
        return found

    def read(norm: str) -> Array:
        """The output of a normalisation, which the matrices after it read."""
        out: Array = value(f"{norm}.hook_normalized") * weight(f"{norm}.w")
        return out + weight(f"{norm}.b") if f"{norm}.b" in weights else out

    for norm, described in model.normalizations.items():
        centred = described.centred(value(described.reads))
        scale = np.sqrt((centred**2).mean(-1, keepdims=True) + described.eps)
        yield f"{norm}.hook_scale", scale
        yield f"{norm}.hook_normalized", centred / value(f"{norm}.hook_scale")
    later = np.triu(np.ones((_LENGTH, _LENGTH), bool), 1)
    act = ACTIVATIONS.get(cfg.act_fn)
    for layer in range(cfg.n_layers):
        block, attn, mlp = f"blocks.{layer}", f"blocks.{layer}.attn", f"blocks.{layer}.mlp"
        x = read(f"{block}.ln1")
        for letter in "QKV":
            projected = np.einsum("bpd,hde->bphe", x, weight(f"{attn}.W_{letter}"))
            yield f"{attn}.hook_{letter.lower()}", projected + weight(f"{attn}.b_{letter}")
        rotated = "rot_" if f"{attn}.hook_rot_q" in values else ""
        if rotated:  # a rotation keeps lengths; the comparison with transformers verifies its angles
            for letter in "qk":
                before, after = (np.linalg.norm(value(f"{attn}.hook_{r}{letter}"), axis=-1) for r in ("", "rot_"))
                _check(f"the length of {attn}.hook_rot_{letter}", after, before)
        q, k, v = (value(f"{attn}.hook_{name}") for name in (f"{rotated}q", f"{rotated}k", "v"))
        k, v = (np.repeat(one, cfg.n_heads // one.shape[2], axis=2) for one in (k, v))
        scores = np.einsum("bqhe,bkhe->bhqk", q, k) / cfg.attn_divisor(layer)
        yield f"{attn}.hook_attn_scores", np.where(later, -np.inf, scores)
        scores = value(f"{attn}.hook_attn_scores")
        powers = np.exp(scores - scores.max(-1, keepdims=True))
        yield f"{attn}.hook_pattern", powers / powers.sum(-1, keepdims=True)
        yield f"{attn}.hook_z", np.einsum("bhqk,bkhe->bqhe", value(f"{attn}.hook_pattern"), v)
        result = np.einsum("bphe,hed->bphd", value(f"{attn}.hook_z"), weight(f"{attn}.W_O"))
        yield f"{attn}.hook_result", result
        yield f"{block}.hook_attn_out", result.sum(2) + weight(f"{attn}.b_O")
        x = read(f"{block}.ln2")
        inside = value(f"{mlp}.hook_pre")
        post = act(torch.from_numpy(inside)).numpy() if act is not None else value(f"{mlp}.hook_post")
        if cfg.gated_mlp:
            yield f"{mlp}.hook_pre", x @ weight(f"{mlp}.W_gate") + weight(f"{mlp}.b_gate")
            yield f"{mlp}.hook_pre_linear", x @ weight(f"{mlp}.W_in") + weight(f"{mlp}.b_in")
            post = post * value(f"{mlp}.hook_pre_linear") if act is not None else post
        else:
            yield f"{mlp}.hook_pre", x @ weight(f"{mlp}.W_in") + weight(f"{mlp}.b_in")
        yield f"{mlp}.hook_post", post
        yield f"{block}.hook_mlp_out", value(f"{mlp}.hook_post") @ weight(f"{mlp}.W_out") + weight(f"{mlp}.b_out")
    total, stream = np.zeros((1,)), model.residual_stream
    for name in model.points:  # in the order of computation
        if name in stream.states:
            yield name, np.broadcast_to(total, values[name].shape)
        total = total + value(name) if name in stream.parts else total
    yield "logits", read("ln_final") @ weight("unembed.W_U") + weight("unembed.b_U")
