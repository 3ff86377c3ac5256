"""Analyses: functions over a `Lens`, with NumPy only, that return results whose arrays have labelled axes.

- `logit_lens`: the model's prediction after each block
- `attribute_logit`: the contribution of heads, MLPs, neurons and embeddings to a logit
- `attribute_sources`: the same of each head, by the token that it reads
- `ablate_heads`: a metric without each head
- `patch_activations`, `patch_path`: a metric with values of another run; the same along one path from head to head
- `attention_rollout`, `head_scores`: attention over layers; induction, previous-token and duplicate-token heads
- `surprisal`: how unexpected each token is
- `activation_statistics`: of a hook point over many texts
- `gradient_times_input`, `integrated_gradients`, `attribution_patching`: the positions, heads and neurons to which a
  metric is due, by gradients

Each is imported when it is first used.
"""

from typing import TYPE_CHECKING

from onnxlens.runtime._lazy import lazy_names

if TYPE_CHECKING:
    from onnxlens.analysis._ablation import HeadAblation, ablate_heads
    from onnxlens.analysis._attention import AttentionRollout, HeadScores, attention_rollout, head_scores
    from onnxlens.analysis._attribution import (
        Attribution,
        IntegratedGradients,
        PatchingAttribution,
        attribution_patching,
        gradient_times_input,
        integrated_gradients,
    )
    from onnxlens.analysis._logit_attribution import LogitAttribution, attribute_logit
    from onnxlens.analysis._logit_lens import LogitLens, logit_lens
    from onnxlens.analysis._patching import Patching, PathPatching, patch_activations, patch_path
    from onnxlens.analysis._source_attribution import SourceAttribution, attribute_sources
    from onnxlens.analysis._statistics import ActivationStatistics, Context, activation_statistics
    from onnxlens.analysis._surprisal import Surprisal, surprisal

__all__ = [
    "ActivationStatistics",
    "AttentionRollout",
    "Attribution",
    "Context",
    "HeadAblation",
    "HeadScores",
    "IntegratedGradients",
    "LogitAttribution",
    "LogitLens",
    "Patching",
    "PatchingAttribution",
    "PathPatching",
    "SourceAttribution",
    "Surprisal",
    "ablate_heads",
    "activation_statistics",
    "attention_rollout",
    "attribute_logit",
    "attribute_sources",
    "attribution_patching",
    "gradient_times_input",
    "head_scores",
    "integrated_gradients",
    "logit_lens",
    "patch_activations",
    "patch_path",
    "surprisal",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "ActivationStatistics": "onnxlens.analysis._statistics",
        "AttentionRollout": "onnxlens.analysis._attention",
        "Attribution": "onnxlens.analysis._attribution",
        "Context": "onnxlens.analysis._statistics",
        "HeadAblation": "onnxlens.analysis._ablation",
        "HeadScores": "onnxlens.analysis._attention",
        "IntegratedGradients": "onnxlens.analysis._attribution",
        "LogitAttribution": "onnxlens.analysis._logit_attribution",
        "LogitLens": "onnxlens.analysis._logit_lens",
        "Patching": "onnxlens.analysis._patching",
        "PatchingAttribution": "onnxlens.analysis._attribution",
        "PathPatching": "onnxlens.analysis._patching",
        "SourceAttribution": "onnxlens.analysis._source_attribution",
        "Surprisal": "onnxlens.analysis._surprisal",
        "ablate_heads": "onnxlens.analysis._ablation",
        "activation_statistics": "onnxlens.analysis._statistics",
        "attention_rollout": "onnxlens.analysis._attention",
        "attribute_logit": "onnxlens.analysis._logit_attribution",
        "attribute_sources": "onnxlens.analysis._source_attribution",
        "attribution_patching": "onnxlens.analysis._attribution",
        "gradient_times_input": "onnxlens.analysis._attribution",
        "head_scores": "onnxlens.analysis._attention",
        "integrated_gradients": "onnxlens.analysis._attribution",
        "logit_lens": "onnxlens.analysis._logit_lens",
        "patch_activations": "onnxlens.analysis._patching",
        "patch_path": "onnxlens.analysis._patching",
        "surprisal": "onnxlens.analysis._surprisal",
    },
)
