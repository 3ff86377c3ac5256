"""Compares the exported graphs with PyTorch: logits, cache and every hook point.

PyTorch finishes before ONNX Runtime opens the graphs, so that only one of them holds the weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor

from onnxlens.export._checkpoint import Checkpoint
from onnxlens.export._reference import transformers_model
from onnxlens.export.families.parts import Decoder
from onnxlens.runtime._bundle.bundle import HOOKS_GRAPH, PLAIN_GRAPH
from onnxlens.runtime._bundle.config import ModelConfig
from onnxlens.runtime._bundle.weights import Storage
from onnxlens.runtime._graphs.names import cache_inputs, cache_outputs, cache_shape
from onnxlens.runtime.errors import ExportError

__all__ = [
    "TOLERANCE",
    "Case",
    "Values",
    "cases",
    "check",
    "failing_as_export",
    "pytorch_model",
    "record",
    "reference",
    "rounding",
]

# Relative to the largest value of a hook point. Float32 rounding is one to two orders of magnitude smaller; errors of a
# wrong formula (the other GELU, a missing bias) are larger.
TOLERANCE = 1e-4

# Long caches are filled in pieces: attention over a whole context at once would take more memory than the weights.
_CHUNK = 64
_LONGEST = 1024  # positions

Values = dict[str, np.ndarray]
_TRANSFORMERS = "logits (transformers)"


@dataclass(frozen=True)
class Case:
    """One input on which PyTorch and ONNX Runtime are compared.

    Attributes:
        name: a description.
        lengths: the number of tokens in each row; shorter rows are padded on the left.
        cached: how many positions come from a cache, filled by passes of at most `_CHUNK` positions.
        first: the position of the first token of each row.
        hooks: whether hook points are compared too, or logits and cache only.
    """

    name: str
    lengths: tuple[int, ...]
    cached: int = 0
    first: int = 0
    hooks: bool = True

    @property
    def passes(self) -> list[slice]:
        """The positions of each pass; the last one is compared."""
        starts = [*range(0, self.cached, _CHUNK), self.cached]
        return [slice(a, b) for a, b in pairwise([*starts, max(self.lengths)])]

    @property
    def real(self) -> np.ndarray:
        """Whether each compared position is a token and not padding, [B, P] bool."""
        total = max(self.lengths)
        return np.arange(self.cached, total) >= total - np.array(self.lengths)[:, None]

    def inputs(self, vocabulary: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Token ids, attention mask and position ids, each [B, T] int64; the same at every call."""
        total = max(self.lengths)
        ids = np.random.default_rng(total).integers(0, vocabulary, (len(self.lengths), total))
        mask = (np.arange(total) >= total - np.array(self.lengths)[:, None]).astype(np.int64)
        positions = np.maximum(np.cumsum(mask, axis=1) - 1, 0) + self.first
        return np.where(mask == 1, ids, 0), mask, positions


def cases(config: ModelConfig) -> list[Case]:
    """Several lengths, with and without cache, padded and not, up to the model's last position.

    If the context is long, the last positions are tested with a shorter text placed at its end: transformers computes
    it in one pass, whose attention scores grow with the square of the length.
    """
    limit = config.n_ctx
    last = min(limit, _LONGEST)
    wanted = [
        Case("one token", (1,)),
        Case("short", (7,)),
        Case("longer", (24,)),
        Case("padded batch", (3, 12, 8)),
        Case("one token after a cache", (9,), cached=8),
        Case("several tokens after a cache", (14,), cached=5),
        Case("padded batch after a cache", (4, 11, 7), cached=6),
        Case(
            "end of the context" if last < limit else "whole context",
            (last,),
            cached=max(0, last - 4),
            first=limit - last,
            hooks=False,
        ),
    ]
    return [case for case in wanted if max(case.lengths) <= limit]


def reference(checkpoint: Checkpoint, wanted: list[Case]) -> list[Values]:
    """PyTorch's results for each case: hook points and cache of our module, and logits of transformers.

    Both compute with the weights as they will be stored.
    """
    with torch.inference_mode():
        results = _from_model(checkpoint, wanted)
        logits_of = _from_transformers(checkpoint, wanted, checkpoint.storage)
        for case, values, logits in zip(wanted, results, logits_of, strict=True):
            # In transformers, padding attends to a whole row, in our module only to itself: compare tokens only.
            values[_TRANSFORMERS] = np.where(case.real[..., None], logits, values["logits"])
    return results


def rounding(checkpoint: Checkpoint, wanted: list[Case], expected: list[Values]) -> dict[str, Any]:
    """The effect of rounding the weights on transformers' logits, at all positions of all cases.

    Returns:
        For the manifest: `rounding` with the largest `absolute` and `relative` difference from the checkpoint's logits,
        the number of `positions`, and the share of them with the `same_greedy_token`. Empty if nothing is rounded.
    """
    if checkpoint.storage == "float32":
        return {}
    errors: dict[str, dict[str, float]] = {}
    same: list[np.ndarray] = []
    with torch.inference_mode():
        exact = _from_transformers(checkpoint, wanted, "float32")
    for case, values, logits in zip(wanted, expected, exact, strict=True):
        stored, true = values[_TRANSFORMERS][case.real], logits[case.real]  # [real positions, V]
        record(errors, "logits", stored, true)
        same.append(stored.argmax(-1) == true.argmax(-1))
    agreeing = np.concatenate(same)
    return {
        "rounding": {
            **errors["logits"],
            "positions": len(agreeing),
            "same_greedy_token": float(agreeing.mean()),
        }
    }


def check(folder: Path, config: ModelConfig, wanted: list[Case], expected: list[Values]) -> dict[str, Any]:
    """Runs both graphs of a bundle on each case and compares.

    Returns:
        For the manifest: the cases, the tolerance, and for each value its largest absolute error, also as a fraction of
        the value's largest magnitude.

    Raises:
        ExportError: a value misses the tolerance; the text names the worst.
    """
    errors: dict[str, dict[str, float]] = {}
    for graph in (HOOKS_GRAPH, PLAIN_GRAPH):
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        # Packing would copy the weights; without it the session uses the file's own pages.
        options.add_session_config_entry("session.disable_prepacking", "1")
        with failing_as_export(graph):
            session = onnxruntime.InferenceSession(folder / graph, options, providers=["CPUExecutionProvider"])
        outputs = [output.name for output in session.get_outputs()]
        for case, values in zip(wanted, expected, strict=True):
            if graph == HOOKS_GRAPH and not case.hooks:
                continue
            names = [name for name in outputs if case.hooks or name == "logits" or name.startswith("present.")]
            with failing_as_export(graph):
                found = dict(zip(names, _run(session, names, case, config), strict=True))
            found[_TRANSFORMERS] = found["logits"]
            for name, value in found.items():
                record(errors, name, value, values[name])
        del session
    worst = max(errors, key=lambda name: errors[name]["relative"])
    if not errors[worst]["relative"] <= TOLERANCE:
        raise ExportError(
            f"The exported graphs do not reproduce the PyTorch model: {worst} is off by "
            f"{errors[worst]['relative']:.1e} of its largest value, allowed is {TOLERANCE:.0e}. Nothing was written."
        )
    cached = [name for name in errors if name.startswith("present.")]
    summary = {part: _worst_of(errors, [n for n in cached if n.endswith(part)]) for part in ("key", "value")}
    return {
        "reference": "PyTorch eager float32, and transformers for the logits",
        "runtime": f"onnxruntime {onnxruntime.__version__} CPU",
        "cases": [{"name": c.name, "lengths": list(c.lengths), "cached": c.cached, "first": c.first} for c in wanted],
        "tolerance": TOLERANCE,
        "largest_relative_error": errors[worst]["relative"],
        "errors": {
            **{name: error for name, error in errors.items() if name not in cached},
            "present.*.key": summary["key"],
            "present.*.value": summary["value"],
        },
    }


@contextmanager
def failing_as_export(graph: str) -> Iterator[None]:
    """Turns errors of ONNX Runtime into an ExportError that names the graph."""
    try:
        yield
    except Exception as error:  # ONNX Runtime's errors have no common base
        detail = " ".join(str(error).split())[:300]
        raise ExportError(f"ONNX Runtime cannot run the exported {graph}: {detail}. Nothing was written.") from error


def pytorch_model(checkpoint: Checkpoint) -> Decoder:
    """The PyTorch model, which shares a checkpoint's weights."""
    with torch.device("meta"):
        model = checkpoint.family.module()
    family = checkpoint.family
    tied = {family.UNEMBEDDING: checkpoint.tensors[family.EMBEDDING]} if family.tied else {}
    model.load_state_dict({**checkpoint.tensors, **tied}, assign=True)
    return model.eval()


def _from_model(checkpoint: Checkpoint, wanted: list[Case]) -> list[Values]:
    config = checkpoint.family.cfg
    model = pytorch_model(checkpoint)
    results = []
    for case in wanted:
        ids, mask, positions = (torch.from_numpy(array) for array in case.inputs(config.d_vocab))
        empty = torch.zeros(cache_shape(config, len(case.lengths), 0))
        past = [(empty, empty)] * config.n_layers
        *filling, last = case.passes
        for part in filling:
            _, past = model(ids[:, part], mask[:, : part.stop], positions[:, part], past, lambda _, value: value)
        values: dict[str, Tensor] = {}

        def tap(name: str, value: Tensor, kept: dict[str, Tensor] = values, keep: bool = case.hooks) -> Tensor:
            if keep:
                kept[name] = value
            return value

        logits, present = model(ids[:, last], mask, positions[:, last], past, tap)
        cache = dict(zip(cache_outputs(config), chain.from_iterable(present), strict=True))
        results.append({name: value.numpy() for name, value in {"logits": logits, **cache, **values}.items()})
    return results


def _from_transformers(checkpoint: Checkpoint, wanted: list[Case], storage: Storage) -> list[np.ndarray]:
    logits = []
    with transformers_model(checkpoint, storage) as model:
        for case in wanted:
            ids, mask, positions = (torch.from_numpy(a) for a in case.inputs(checkpoint.family.cfg.d_vocab))
            output = model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                use_cache=False,
                logits_to_keep=max(case.lengths) - case.cached,
            )
            logits.append(output.logits.numpy())
    return logits


def _run(session: onnxruntime.InferenceSession, names: list[str], case: Case, config: ModelConfig) -> list[np.ndarray]:
    ids, mask, positions = case.inputs(config.d_vocab)
    past, present = cache_inputs(config), cache_outputs(config)
    cache: Mapping[str, np.ndarray] = {name: np.zeros(cache_shape(config, len(ids), 0), np.float32) for name in past}
    *filling, last = case.passes
    for part in filling:
        feed = {"input_ids": ids[:, part], "attention_mask": mask[:, : part.stop], "position_ids": positions[:, part]}
        cache = dict(zip(past, session.run(present, {**feed, **cache}), strict=True))
    feed = {"input_ids": ids[:, last], "attention_mask": mask, "position_ids": positions[:, last]}
    return list(session.run(names, {**feed, **cache}))


def record(errors: dict[str, dict[str, float]], name: str, found: np.ndarray, expected: np.ndarray) -> None:
    """Keeps the largest error of a value so far: absolute, and as a fraction of the largest magnitude expected."""
    finite = np.isfinite(expected)
    # Masked scores are -inf on both sides; NaN is never equal, not even to itself.
    same = found.shape == expected.shape and np.array_equal(np.isfinite(found), finite)
    if not same or not np.array_equal(found[~finite], expected[~finite]):
        absolute = relative = float("inf")
    else:
        absolute = float(np.max(np.abs(found[finite] - expected[finite]), initial=0.0))
        largest = float(np.max(np.abs(expected[finite]), initial=0.0))
        relative = absolute / largest if largest else (0.0 if absolute == 0 else float("inf"))
    known = errors.setdefault(name, {"absolute": 0.0, "relative": 0.0})
    known["absolute"], known["relative"] = max(known["absolute"], absolute), max(known["relative"], relative)


def _worst_of(errors: dict[str, dict[str, float]], names: list[str]) -> dict[str, float]:
    return {kind: max(errors[name][kind] for name in names) for kind in ("absolute", "relative")}
