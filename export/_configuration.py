"""A checkpoint's config.json: the entries that decide the numbers, and those that cannot be honoured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import PretrainedConfig
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils import logging

from onnxlens.export.families import Family, family_of
from onnxlens.plugins._registry import Registry
from onnxlens.runtime._escape import quoted
from onnxlens.runtime.errors import CheckpointError

__all__ = ["check_configuration", "quiet", "transformers_config"]

# Entries that make transformers compute or load something that the export does not have.
_REFUSED = {
    "add_cross_attention": "cross-attention",
    "quantization_config": "quantised weights",
    "auto_map": "code of its own",
    "pruned_heads": "pruned heads",
    "use_kernels": "kernels in place of its layers",
    "kernel_config": "kernels in place of its layers",
    "fusion_config": "fused layers",
    "transformers_weights": "weights in a file of another name",
}
_ATTENTION = ("attn_implementation", "_attn_implementation")
# Entries that matter only for running the checkpoint, or to a classifier. With 'num_labels' of 10^9, readers of the
# bundle would make that many names.
_LEFT_OUT = (
    *_ATTENTION,
    "_attn_implementation_autoset",
    "torch_dtype",
    "num_labels",
    "id2label",
    "label2id",
    "problem_type",
)


def check_configuration(
    entries: dict[str, Any], origin: str | Path, plugins: Registry
) -> tuple[Family, dict[str, Any]]:
    """Checks the entries of a config.json.

    Args:
        entries: the entries.
        origin: what to call them in an error.
        plugins: where families come from.

    Returns:
        The model; and the entries, with the defaults of those that decide the numbers filled in.

    Raises:
        CheckpointError: it is of no known family, or has an entry that cannot be honoured.
    """
    kind = family_of(entries.get("model_type"), str(origin), plugins)
    for key, meaning in _REFUSED.items():
        if entries.get(key):
            raise CheckpointError(f"{origin}: {key!r} is set; models with {meaning} cannot be exported.")
    for key in _ATTENTION:
        value = entries.get(key)
        if value is not None and value not in ("eager", *ALL_ATTENTION_FUNCTIONS):
            raise CheckpointError(
                f"{origin}: {key!r} is {quoted(value)}, a kernel that transformers would fetch. If the model computes "
                "the same without it, remove the entry."
            )
    known = {*_passed_on(kind), *kind.CONFIG.attribute_map}  # including the other names that it accepts
    try:
        with quiet():
            resolved = kind.CONFIG(**{key: value for key, value in entries.items() if key in known})
    except Exception as error:  # its validators raise errors of many kinds
        raise CheckpointError(f"{origin}: transformers cannot read it: {_short_text(error)}") from error
    decisive = {name: getattr(resolved, name) for name in kind.DEFAULTS}
    left_out = {*_LEFT_OUT, *kind.OTHER_NAMES}
    return kind(decisive, str(origin)), {k: value for k, value in entries.items() if k not in left_out} | decisive


def transformers_config(family: type[Family], entries: dict[str, Any]) -> PretrainedConfig:
    """Transformers' configuration, made of checked entries that decide the numbers, and nothing else."""
    with quiet():
        return family.CONFIG(**{key: entries[key] for key in _passed_on(family) if key in entries})


def _passed_on(family: type[Family]) -> tuple[str, ...]:
    """The entries that transformers gets; `reorder_and_upcast_attn` changes the order of two multiplications."""
    return (*family.DEFAULTS, *family.OTHER_NAMES, "reorder_and_upcast_attn")


@contextmanager
def quiet() -> Iterator[None]:
    """Hides transformers' progress bars and warnings; the export reports problems itself."""
    shown, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if shown:
            logging.enable_progress_bar()


def _short_text(error: BaseException) -> str:
    return " ".join(str(error)[:10_000].split())[:300]
