"""What a model costs on a text: parameters, bytes and multiply-adds of each part, and measured times."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from onnxlens._lens import Lens
    from onnxlens.plugins.explorer._reads import Run

__all__ = ["cost_parts", "costs"]

_TIMES = 3  # measurements, of which the fastest counts
_LONG = 0.5  # seconds from which on a pass is measured once


def costs(run: Run) -> None:
    """Counts and measures the prediction of the next token, without edits; see `Cost` in `web/src/engine/types.ts`."""
    lens, config, count = run.lens, run.lens.config, len(run.ids)
    prefix, token = np.array([run.ids]), np.array([[run.token]])
    output = lens.runner.run(prefix, logits="last")  # opens what the measured passes need
    seconds = _fastest(lambda: lens.runner.run(prefix, logits="last"), 1)
    times = 1 if seconds > _LONG else _TIMES
    seconds = min(seconds, _fastest(lambda: lens.runner.run(prefix, logits="last"), times - 1))
    cached = None
    if count < config.n_ctx:
        cached = _fastest(lambda: lens.runner.run(token, logits="last", kv_cache=output.kv_cache), times)
    measured = _by_part(lens, prefix, times)
    parts = _counted(lens, count)
    for part in parts:
        part["seconds"] = None if measured is None else measured.get(part["part"], 0.0)
    run.facts["costs"] = {
        "parts": parts,
        "seconds": seconds,
        "seconds_cached": cached,
        "times": times,
        "kv_cache_bytes": 2 * config.n_layers * config.key_value_heads * config.d_head * count * 4,
    }


def cost_parts(lens: Lens) -> list[dict[str, Any]]:
    """What each part of a model has, for a text of any length.

    A weight that two parts share belongs to the first one; its multiply-adds belong to each that uses it.

    Returns:
        Of each part its name, `parameters`, the `bytes` of these in float32, the `multiply_adds` of its matrices for a
        token, and `of`: the tokens that they are for, `all`, `last` or `none`, where a row is looked up. `width` is
        that of the attention's heads, 0 in other parts.
    """
    config, views = lens.config, lens.runner.bundle.description.weights
    seen: set[tuple[Any, ...]] = set()
    found = []

    def part(name: str, starts: tuple[str, ...], of: str, width: int = 0) -> None:
        names = [one for one in lens.weights if one.startswith(starts)]
        parameters = 0
        for one in names:
            view = views[one]
            stored = (view.tensor, view.slice)
            if view.tensor is not None and stored not in seen:  # a weight that the model does not have is zero
                seen.add(stored)
                parameters += lens.weights[one].size
        matrices = 0 if of == "none" else sum(lens.weights[one].size for one in names if ".W_" in one)
        facts = {"part": name, "parameters": parameters, "bytes": 4 * parameters}
        found.append({**facts, "multiply_adds": matrices, "of": of, "width": width})

    part("embed", ("embed.",), "none")
    if any(one.startswith("pos_embed.") for one in lens.weights):
        part("pos_embed", ("pos_embed.",), "none")
    for layer in range(config.n_layers):
        block = f"blocks.{layer}"
        part(f"{block}.attn", (f"{block}.ln1.", f"{block}.attn."), "all", config.n_heads * config.d_head)
        part(f"{block}.mlp", (f"{block}.ln2.", f"{block}.mlp."), "all")
    part("unembed", ("ln_final.", "unembed."), "last")
    return found


def _counted(lens: Lens, count: int) -> list[dict[str, Any]]:
    """Parameters, bytes in float32, and multiply-adds of each part for a text of `count` tokens."""
    found = []
    for part in cost_parts(lens):
        of, width, matrices = part.pop("of"), part.pop("width"), part["multiply_adds"]
        # Scores and weighted values: each query looks at itself and the positions before it.
        part["multiply_adds"] = matrices * (count if of == "all" else 1) + width * count * (count + 1)
        part["multiply_adds_cached"] = matrices + 2 * width * (count + 1)
        found.append(part)
    return found


def _by_part(lens: Lens, prefix: np.ndarray, times: int) -> dict[str, float] | None:
    """The seconds of each part in the fastest of several passes; None where they cannot be measured."""
    found = lens.runner.profile(prefix, times=times)
    if found is None:
        return None
    seconds: dict[str, float] = {}
    for value, spent in found.items():
        name = _part(value, lens)
        seconds[name] = seconds.get(name, 0.0) + spent
    return seconds


def _part(value: str, lens: Lens) -> str:
    """The part that computes a hook point, or an output of the model."""
    if value == "hook_pos_embed":
        return "pos_embed"
    if match := re.match(r"present\.(\d+)\.", value):
        return f"blocks.{match[1]}.attn"
    match = re.match(r"blocks\.(\d+)\.(.+)", value)
    if match is None:
        return "embed" if value == "hook_embed" else "unembed"
    layer, rest = int(match[1]), match[2]
    if rest == "hook_resid_pre":  # the sum of the embeddings, or what the block before returned
        return "embed" if layer == 0 else f"blocks.{layer - 1}.mlp"
    is_mlp = rest.startswith(("ln2.", "mlp.")) or rest in ("hook_mlp_out", "hook_resid_post")
    return f"blocks.{layer}.{'mlp' if is_mlp else 'attn'}"


def _fastest(call: Callable[[], object], times: int) -> float:
    """The shortest of several times that a call takes, in seconds; infinite if it is not called."""
    found = [float("inf")]
    for _ in range(times):
        started = time.perf_counter()
        call()
        found.append(time.perf_counter() - started)
    return min(found)
