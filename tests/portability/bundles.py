"""The bundles that other runtimes run, and the numbers that they must reproduce, which onnxlens's own runner computes.

A folder NAME holds the bundle in NAME/bundle, and beside it:

- `expected.safetensors`: a batch of texts of unequal length (`input_ids`, `attention_mask`, `position_ids`, padded on
  the left), `logits`, the value of every hook point under its name, and where the bundle has gradients the cotangent
  `grad.logits` and the gradient under `grad.` and the hook point's name;
- `expected.json`: `prompts`, texts of unequal length; the `ids` of each; and `greedy`, the tokens that follow.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from checkpoints import write_checkpoint
from safetensors.numpy import save_file

import onnxlens
from onnxlens.export import _bundle as pipeline
from onnxlens.export import export
from onnxlens.runtime._running.generation import generate_ids
from onnxlens.runtime._running.runner import Runner

__all__ = ["BUNDLES", "make"]

# For each model, with the words of the table: its bundles, by how the weights are stored.
BUNDLES = {
    "the model that ships": {"float32": "tiny-float32", "float16": "tiny"},
    "GPT-2, odd": {"float32": "odd", "float16": "odd-float16"},
    "Llama": {"float32": "llama", "float16": "llama-float16"},
}

# Untied, scaled by layer, with widths that are no multiple of four.
_ODD = {
    "n_layer": 3,
    "n_head": 3,
    "n_embd": 33,
    "n_inner": 50,
    "vocab_size": 299,
    "activation_function": "gelu",
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": True,
}
_END = "<|endoftext|>"
# The first four whose greedy tokens are not a matter of rounding; one begins with the end token, which is padding, too.
_PROMPTS = (
    f"{_END}Once upon a time there was",
    "The function returns",
    "When Mary and John went to the shop, John gave a drink to",
    "the cat",
    f"{_END}the dog sat on the mat",
    "Data visualization empowers",
    "the rain",
    "a",
    "in spain and the plain",
    "def main(self, name):",
    "the hat and the cat and the dog",
    "It was a dark night. The",
)
_COUNT, _NEW = 4, 8  # prompts, and tokens that follow each
_MARGIN = 1e-3  # of the best logit before the second, as a share of the largest; rounding is a hundredth of it
_LENGTHS = (5, 12, 9)  # of the texts of the batch


def make(folder: Path, progress: Callable[[str], None]) -> None:
    """Makes all bundles in a folder, unless they are there and made by the same code."""
    stamp = folder / "made-by"
    root = Path(__file__).parents[2]
    sources = [Path(__file__), root / "tests" / "checkpoints.py"]
    for part in ("export", "runtime", "models/tiny"):
        sources += sorted(path for path in (root / part).rglob("*") if path.is_file() and path.suffix != ".pyc")
    digest = hashlib.sha256(b"".join(hashlib.sha256(path.read_bytes()).digest() for path in sources)).hexdigest()
    if stamp.is_file() and stamp.read_text() == digest:
        return
    shutil.rmtree(folder, ignore_errors=True)
    _trace_once()
    for names in BUNDLES.values():
        for storage, name in names.items():
            progress(f"making {name}")
            bundle = folder / name / "bundle"
            if name == "tiny":
                shutil.copytree(onnxlens.find(), bundle)
            else:
                source = folder / "checkpoints" / name.split("-")[0]
                _checkpoint(source)
                # The gradients of the model that ships are in its own bundle.
                export(source, bundle, storage=storage, gradients=name != "tiny-float32")
            _write_expected(folder / name)
    names_of_all = [name for names in BUNDLES.values() for name in names.values()]
    (folder / "names.json").write_text(json.dumps(names_of_all))  # a page cannot list a folder
    stamp.write_text(digest)


def _trace_once() -> None:
    """Lets the export of a model that was traced before take a copy of that graph."""
    for name in ("hooks_graph", "gradients_graph"):
        trace, traced = getattr(pipeline, name), {}

        def copied(family: Any, trace: Any = trace, traced: dict[Any, Any] = traced) -> Any:
            if family.cfg not in traced:
                traced[family.cfg] = trace(family)
            return traced[family.cfg].clone()

        setattr(pipeline, name, copied)


def _checkpoint(folder: Path) -> None:
    """Writes a checkpoint, with as little about its tokenizer as other people's have."""
    if folder.name == "tiny":
        bundle = onnxlens.Bundle(onnxlens.find())
        folder.mkdir(parents=True)
        for name in ("config.json", "tokenizer.json"):
            shutil.copy(bundle.path / name, folder)
        save_file({name: np.array(bundle.weights[name]) for name in bundle.weights}, folder / "model.safetensors")
    elif folder.name == "odd":
        write_checkpoint(folder, "untied", **_ODD)
    else:
        write_checkpoint(folder, folder.name)
    kind = "PreTrainedTokenizerFast" if folder.name == "llama" else "GPT2Tokenizer"
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind}))


def _write_expected(folder: Path) -> None:
    bundle = onnxlens.Bundle(folder / "bundle")
    with Runner(bundle, provider="cpu", threads=1) as runner:
        save_file(_values(runner), folder / "expected.safetensors")
        prompts, ids, greedy = [], [], []
        for prompt in _PROMPTS:
            encoded = bundle.tokenizer.encode(prompt)
            if len(encoded) + _NEW > bundle.config.n_ctx:
                continue
            tokens, margin = _greedy(runner, encoded)
            lengths = {*map(len, ids)}
            if margin > _MARGIN and not {*tokens} & {*bundle.end_tokens} and len(encoded) not in lengths:
                prompts.append(prompt)
                ids.append(encoded)
                greedy.append(tokens)
    if len(prompts) < _COUNT or not any(prompt.startswith(_END) for prompt in prompts[:_COUNT]):
        raise SystemExit(f"{folder.name}: too few prompts have a clear next token; add some to {__file__}.")
    entries = {"prompts": prompts[:_COUNT], "ids": ids[:_COUNT], "greedy": greedy[:_COUNT]}
    (folder / "expected.json").write_text(json.dumps(entries))


def _values(runner: Runner) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    longest = max(_LENGTHS)
    mask = np.array([[0] * (longest - length) + [1] * length for length in _LENGTHS])  # [B, P]
    ids = rng.integers(0, runner.config.d_vocab, mask.shape)
    output = runner.run(ids, mask, names_filter=lambda name: not name.endswith("hook_result"))
    values = {
        "input_ids": ids,
        "attention_mask": mask,
        "position_ids": np.maximum(mask.cumsum(axis=1) - 1, 0),
        "logits": output.logits,
        **output.activations,
    }
    if runner.bundle.has_gradients:
        cotangent = (rng.normal(size=output.logits.shape) * mask[..., np.newaxis]).astype(np.float32)
        gradients = runner.gradients.run(ids, mask, cotangent=lambda logits: cotangent).gradients
        values |= {"grad.logits": cotangent, **{f"grad.{name}": value for name, value in gradients.items()}}
    return {name: np.ascontiguousarray(value) for name, value in values.items()}


def _greedy(runner: Runner, prompt: list[int]) -> tuple[list[int], float]:
    """The greedy tokens after a prompt, and the least margin by which one of them was chosen."""
    tokens, margin = [], np.inf
    for step in generate_ids(runner, prompt, lambda logits, ids, n: int(logits.argmax()), max_new_tokens=_NEW):
        best = np.sort(step.logits)[::-1]
        margin = min(margin, float((best[0] - best[1]) / np.abs(best).max()))
        tokens.append(step.token)
    return tokens, margin
