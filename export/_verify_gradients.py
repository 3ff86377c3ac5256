"""Compares the exported graph of the gradients with torch.autograd: logits, every hook point, the gradient at each.

As for the other graphs, PyTorch finishes before ONNX Runtime opens the graph.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import torch

from onnxlens.export._checkpoint import Checkpoint
from onnxlens.export._gradient_graph import with_gradients
from onnxlens.export._verify import TOLERANCE, Case, Values, failing_as_export, pytorch_model, record
from onnxlens.runtime._bundle.bundle import GRADIENTS_GRAPH
from onnxlens.runtime._bundle.config import ModelConfig
from onnxlens.runtime._graphs.names import COTANGENT, GRADIENT
from onnxlens.runtime.errors import ExportError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["check", "reference"]


def reference(checkpoint: Checkpoint, wanted: list[Case]) -> list[Values]:
    """PyTorch's results for each case without a cache: logits, values and gradients, by the graph's names."""
    config = checkpoint.family.cfg
    model = pytorch_model(checkpoint).requires_grad_(requires_grad=False)
    weights = dict(model.named_parameters())
    results = []
    for case in _usable(wanted):
        inputs = [torch.from_numpy(array) for array in _inputs(case, config).values()]
        logits, values, gradients = with_gradients(model, weights, *inputs)
        named = {"logits": logits, **values, **{GRADIENT + name: value for name, value in gradients.items()}}
        results.append({name: value.detach().numpy() for name, value in named.items()})
    return results


def check(folder: Path, config: ModelConfig, wanted: list[Case], expected: list[Values]) -> dict[str, Any]:
    """Runs the graph on each case and compares.

    Returns:
        For the manifest: the cases, the tolerance, and for each value and gradient its largest absolute error, also as
        a fraction of its largest magnitude.

    Raises:
        ExportError: a value or gradient misses the tolerance; the text names the worst.
    """
    errors: dict[str, dict[str, float]] = {}
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.disable_prepacking", "1")  # as in `verify`: no copy of the weights
    with failing_as_export(GRADIENTS_GRAPH):
        session = onnxruntime.InferenceSession(folder / GRADIENTS_GRAPH, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    with failing_as_export(GRADIENTS_GRAPH):
        found = [dict(zip(names, session.run(names, _inputs(c, config)), strict=True)) for c in _usable(wanted)]
    for name in names:
        # Scaled over all cases together, since a gradient may vanish in one of them.
        record(errors, name, *(np.concatenate([v[name].ravel() for v in side]) for side in (found, expected)))
    worst = max(errors, key=lambda name: errors[name]["relative"])
    if not errors[worst]["relative"] <= TOLERANCE:
        raise ExportError(
            f"The exported gradients differ from those of the PyTorch model: {worst} is off by "
            f"{errors[worst]['relative']:.1e} of its largest value, allowed is {TOLERANCE:.0e}. Nothing was written."
        )
    return {
        "reference": "torch.autograd float32",
        "cases": [case.name for case in _usable(wanted)],
        "tolerance": TOLERANCE,
        "largest_relative_error": errors[worst]["relative"],
        "errors": errors,
    }


def _usable(wanted: list[Case]) -> list[Case]:
    """The cases without a cache that are short enough to keep all their values."""
    return [case for case in wanted if case.hooks and not case.cached]


def _inputs(case: Case, config: ModelConfig) -> dict[str, np.ndarray]:
    """The graph's inputs for a case, with a random cotangent that is 0 at padding."""
    ids, mask, positions = case.inputs(config.d_vocab)
    cotangent = np.random.default_rng(len(ids)).normal(size=(*ids.shape, config.d_vocab)).astype(np.float32)
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "position_ids": positions,
        COTANGENT: np.where(case.real[..., None], cotangent, np.float32(0)),
    }
