"""Names of TransformerLens that onnxlens does not have, and what to use instead."""

from __future__ import annotations

from collections.abc import Iterable

from onnxlens.runtime.errors import suggestion

__all__ = ["UTILITIES", "attribute_error"]

_LOAD = "choose where the model runs as it is opened, onnxlens.load(name, provider='cuda' or 'cpu')"
_INFERENCE = "a lens only runs a model, it does not train it"
_WEIGHTS = "lens.weights has all weights by name, as a mapping"
_PROCESSED = "weights stay raw; cache.folded() shows the result of TransformerLens's weight processing"
_GRADIENTS = "lens.grad(text, metric=...) computes gradients at hook points"
_CACHING = "lens.run_with_cache(text, names_filter=...) reads activations"
_ALWAYS = "it is always there; name it to read it, as 'blocks.*.attn.hook_result'"
_NOT_A_HOOK = "the graph has no such hook point; change the residual stream or q, k and v at theirs"
_EXPORT = "export a checkpoint once, onnxlens export CHECKPOINT, and open it with onnxlens.load"

_ATTRIBUTES = {
    "add_caching_hooks": _CACHING,
    "attn_head_labels": "use lens.all_head_labels",
    "block_hooks": "lens.hook_points lists all hook points",
    "boot_transformers": _EXPORT,
    "cache_all": _CACHING,
    "cache_some": _CACHING,
    "center_unembed": _PROCESSED,
    "center_writing_weights": _PROCESSED,
    "check_hooks_to_add": "names are checked when a hook is added or a run begins",
    "cpu": _LOAD,
    "cuda": _LOAD,
    "device": "use lens.provider",
    "dtype": "use lens.cfg.dtype; computation is float32",
    "enable_compatibility_mode": _PROCESSED,
    "eval": _INFERENCE,
    "fold_layer_norm": _PROCESSED,
    "fold_value_biases": _PROCESSED,
    "forward": "call the lens itself, lens(text)",
    "from_pretrained": _EXPORT,
    "generate_stream": "lens.generate(text) is an iterator over the tokens",
    "get_caching_hooks": _CACHING,
    "get_params": _WEIGHTS,
    "hf_generate": "use lens.generate(text)",
    "input_to_embed": "read 'hook_embed' and 'hook_pos_embed' with lens.run_with_cache",
    "load_state_dict": _EXPORT,
    "loss_fn": "use lens(text, return_type='loss'), or onnxlens.utils.lm_cross_entropy_loss",
    "mod_dict": "lens.hook_dict has the hooks, lens.weights the weights",
    "mps": _LOAD,
    "named_parameters": _WEIGHTS,
    "original_model": "a bundle holds no PyTorch model",
    "parameters": _WEIGHTS,
    "process_weights": _PROCESSED,
    "process_weights_": _PROCESSED,
    "refactor_factored_attn_matrices": _PROCESSED,
    "remove_all_hook_fns": "use lens.reset_hooks()",
    "requires_grad_": _GRADIENTS,
    "set_tokenizer": "a bundle brings its own tokenizer; export with --tokenizer to choose another one",
    "set_use_attn_in": _NOT_A_HOOK,
    "set_use_attn_result": _ALWAYS,
    "set_use_hook_mlp_in": _NOT_A_HOOK,
    "set_use_split_qkv_input": _NOT_A_HOOK,
    "state_dict": _WEIGHTS,
    "test_prompt": "use onnxlens.utils.test_prompt(prompt, answer, lens)",
    "tl_named_parameters": _WEIGHTS,
    "tl_parameters": _WEIGHTS,
    "to": _LOAD,
    "train": _INFERENCE,
    "zero_grad": _GRADIENTS,
}

UTILITIES = {
    "Slice": "give pos_slice a number, a range such as (2, 5), or a list",
    "download_file_from_hf": _EXPORT,
    "get_dataset": "load texts with the datasets library",
    "get_device": "onnxlens.load(provider='auto') takes a GPU where there is one",
    "logits_to_df": "lens.predict(text).top lists the most probable tokens",
    "remove_batch_dim": "use array[0], or lens.run_with_cache(..., remove_batch_dim=True)",
    "sample_logits": "onnxlens.plugins.samplers has samplers; lens.generate(sampler=...) takes a chain of them",
    "set_seed": "give a seed to functions that draw, such as lens.generate(text, seed=1)",
    "tokenize_and_concatenate": "lens.to_tokens(texts) gives padded ids",
}


def attribute_error(owner: str, name: str, known: Iterable[str]) -> AttributeError:
    """The error for an unknown attribute, which says what to use instead."""
    if name in _ATTRIBUTES:
        return AttributeError(f"{owner} has no {name!r}: {_ATTRIBUTES[name]}.")
    public = [other for other in known if not other.startswith("_")]
    return AttributeError(f"{owner} has no attribute {name!r}.{suggestion(name[:100], public)}")
