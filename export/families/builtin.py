"""Registers the built-in model families, as any plugin would; they are imported when they are used."""

from __future__ import annotations

from collections.abc import Callable

from onnxlens.plugins._hookspecs import API_VERSION, hookimpl

__all__ = ["register_families"]

ONNXLENS_PLUGIN_API = API_VERSION


@hookimpl
def register_families(register: Callable[[str, str], None]) -> None:
    """Registers the families of this package."""
    register("gpt2", "onnxlens.export.families.gpt2:GPT2")
    register("llama", "onnxlens.export.families.llama:Llama")
    register("mistral", "onnxlens.export.families.llama:Mistral")
