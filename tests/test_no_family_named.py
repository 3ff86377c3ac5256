"""Only `export/` knows model families: their names, their checkpoints' tensors, their configuration's entries."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkpoints import LLAMAS, config_entries, family

from onnxlens.export.families import families

ROOT = Path(__file__).parents[1]
FOLDERS = ("runtime", "plugins", "onnxlens")

# What other things are called, too: entries of generation_config.json, entries of TransformerLens's cfg, plain words.
SHARED = {
    "bos_token_id",
    "eos_token_id",
    "tie_word_embeddings",
    "scale_attn_by_inverse_layer_idx",
    "weight",
    "bias",
    "attn",
    "mlp",
    "h",
    "norm",
    "layers",
}

# Not of this project: the text of a package that begins a family, for its author to change.
TEMPLATES = {"plugins/_scaffold.py"}


def known_names() -> set[str]:
    """What only a family's own file should say."""
    names = set(families())
    for name in ("base", *LLAMAS):
        model = family(config_entries(name))
        names.update(model.DEFAULTS, *(stored.split(".") for stored in model.parameter_shapes()))
    return {name for name in names if not name.isdecimal()} - SHARED


def said(source: str) -> Iterator[tuple[int, str]]:
    """Names and texts of a module with their lines; docstrings and comments are for people."""
    tree = ast.parse(source)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {
        node.body[0].value
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docstrings:
            yield node.lineno, node.value
        for field in ("id", "attr", "arg", "name"):
            if isinstance(value := getattr(node, field, None), str):
                yield getattr(node, "lineno", 0), value


def found_in(source: str, names: set[str]) -> list[str]:
    words = re.compile(rf"(?<![a-z0-9_])({'|'.join(map(re.escape, sorted(names)))})(?![a-z0-9_])", re.IGNORECASE)
    return [f"{line}: {match[0]}" for line, text in said(source) for match in words.finditer(text)]


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_family_is_named_outside_of_the_export(folder: str) -> None:
    names = known_names()
    found = {
        str(path.relative_to(ROOT)): lines
        for path in sorted((ROOT / folder).rglob("*.py"))
        if path.relative_to(ROOT).as_posix() not in TEMPLATES
        and (lines := found_in(path.read_text(encoding="utf-8"), names))
    }
    assert not found


@pytest.mark.parametrize(
    "source",
    [
        'name = "wte.weight"',
        'value = weights["layers.0.self_attn.q_proj.weight"]',
        "width = config.n_embd",
        "from onnxlens.export.families import gpt2",
        'if kind == "Llama":\n    pass',
        'heads = entries["num_key_value_heads"]',
    ],
)
def test_the_test_can_fail(source: str) -> None:
    assert found_in(source, known_names())


def test_docstrings_and_comments_may_name_a_family() -> None:
    assert not found_in('"""As in GPT2."""\n# as in gpt2\nx = 1\n', known_names())
