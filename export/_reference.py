"""transformers' own model of a checkpoint, against which an export is verified."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel

from onnxlens.export._checkpoint import Checkpoint, rounded
from onnxlens.export._configuration import quiet, transformers_config
from onnxlens.export._weight_files import read_tensors
from onnxlens.runtime._bundle.weights import Storage

__all__ = ["transformers_model"]


@contextmanager
def transformers_model(checkpoint: Checkpoint, storage: Storage = "float32") -> Iterator[PreTrainedModel]:
    """Yields transformers' own model of a checkpoint, float32, rounded to a storage, and in evaluation mode.

    For a folder, transformers gets the tensors and the checked configuration, so that nothing else in the folder is
    read or run; it decides by itself which tensor is which parameter. A model in memory is not changed: it is used as
    it is, or copied if something has to change.
    """
    reference = checkpoint.reference
    if not isinstance(reference, PreTrainedModel):
        with quiet():
            model = checkpoint.family.REFERENCE.from_pretrained(
                None,
                config=transformers_config(type(checkpoint.family), checkpoint.config_entries),
                state_dict=read_tensors(reference),
                attn_implementation="eager",
                dtype=torch.float32,
            )
        yield _round_in_place(model, storage).eval()
        return
    if reference.dtype != torch.float32 or reference.device.type != "cpu" or storage != "float32":
        # Not `.float()`, which transformers refuses for a model from GGUF, though its tensors are dequantized.
        yield _round_in_place(torch.nn.Module.float(copy.deepcopy(reference)).cpu(), storage).eval()
        return
    training = [(module, module.training) for module in reference.modules()]
    try:
        yield reference.eval()
    finally:
        for module, mode in training:
            module.training = mode


def _round_in_place(model: PreTrainedModel, storage: Storage) -> PreTrainedModel:
    with torch.no_grad():
        for parameter in model.parameters():
            if (kept := rounded(parameter, storage)) is not parameter:
                parameter.copy_(kept)
    return model
