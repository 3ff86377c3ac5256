"""Writes a new plugin: an installable package that works, with a test."""

from __future__ import annotations

import keyword
import os
import re
import shutil
from importlib.metadata import version
from pathlib import Path
from string import Template
from uuid import uuid4

from onnxlens.plugins._checks import check_name
from onnxlens.plugins._hookspecs import API_VERSION
from onnxlens.plugins._registry import Registry
from onnxlens.runtime.errors import OutputError, PluginError

__all__ = ["write"]

_PROJECT = """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "$package"
version = "0.1.0"
description = "The $kind $name, a plugin of onnxlens."
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["onnxlens$extra>=$version"]

[project.optional-dependencies]
test = ["pytest"]

[project.entry-points.onnxlens]
$name = "$module"

[tool.setuptools]
py-modules = [$modules]
"""

_README = """\
# $package

The $kind `$name`, a plugin of onnxlens.

    pip install -e '.[test]'
    onnxlens plugins show $name
    $use
    python -m pytest

$about
"""

_SAMPLER = '''\
"""The sampler `$name`, a plugin of onnxlens."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from onnxlens.plugins import Context, Option, Sampler, hookimpl

ONNXLENS_PLUGIN_API = $api


@dataclass
class $class_(Sampler):
    """Keeps the tokens that are at least so probable, measured by the most probable one.

    The most probable token always stays. Write here what yours does, its formula, and where it is from.
    """

    share: Annotated[float, Option("how probable a token must be, 1 being the most probable", gt=0, le=1)] = 0.1

    def __call__(self, logits: np.ndarray, context: Context) -> np.ndarray:
        """Returns the logits, [B, V], -inf where a token is ruled out."""
        # A ratio of probabilities is a difference of logits.
        least = logits.max(axis=-1, keepdims=True) + np.log(self.share)  # [B, 1]
        return np.where(logits < least, -np.inf, logits)


@hookimpl
def register_samplers(register):
    """Adds it to onnxlens."""
    register("$name", $class_)
'''

_SAMPLER_TEST = '''\
"""Does the sampler keep to the contract, and do what it says?"""

import numpy as np
import pytest
from onnxlens.plugins.testing import check_sampler, context_of

from $module import $class_


@pytest.mark.parametrize("share", [0.01, 0.1, 1.0])
def test_it_keeps_to_the_contract(share):
    check_sampler($class_, share=share)


def test_it_keeps_what_is_probable_enough():
    logits = np.log(np.array([[0.5, 0.3, 0.15, 0.05]]))
    left = $class_(share=0.5)(logits, context_of(logits))
    assert np.isfinite(left).tolist() == [[True, True, False, False]]
'''

_VISUALIZER = '''\
"""The visualizer `$name`, a plugin of onnxlens."""

from dataclasses import dataclass
from html import escape
from typing import Annotated

from onnxlens.plugins import Option, Rendering, Visualizer, hookimpl, page
from rich.table import Table
from rich.text import Text

ONNXLENS_PLUGIN_API = $api


@dataclass
class $class_(Visualizer):
    """How strongly a head attends, at most, to each token.

    Write here what yours shows.
    """

    layer: Annotated[int, Option("the block, negative ones from the end")] = 0
    head: Annotated[int, Option("the head, negative ones from the end")] = 0

    def hook_points(self, config):
        """The patterns of one block, and nothing else is computed."""
        return [f"blocks.{self.index_option('layer', config.n_layers)}.attn.hook_pattern"]

    def draw(self, view):
        """Returns the rendering."""
        pattern = view.cache["pattern", self.layer]  # [H, Q, K]
        head = self.index_option("head", view.config.n_heads)
        return Attended(view.str_tokens, pattern[head].max(axis=0).tolist())


class Attended(Rendering):
    """What can be had of it: text, HTML and data. For PNG and SVG, add `figure`."""

    def __init__(self, tokens, values):
        """Keeps what is shown."""
        self.tokens, self.values = tokens, values

    def text(self):
        """For a terminal."""
        table = Table("token", "attention", box=None)
        for token, value in zip(self.tokens, self.values, strict=True):
            table.add_row(Text(repr(token)), f"{value:.3f}")  # Text, so that no markup in a token is obeyed
        return table

    def html(self):
        """One file that works offline; what comes from a text is escaped."""
        rows = [
            f"<tr><td><code>{escape(repr(token))}</code></td><td>{value:.3f}</td></tr>"
            for token, value in zip(self.tokens, self.values, strict=True)
        ]
        return page("$name", "<table>" + "".join(rows) + "</table>")

    def data(self):
        """For machines."""
        return [{"token": token, "attention": value} for token, value in zip(self.tokens, self.values, strict=True)]


@hookimpl
def register_visualizers(register):
    """Adds it to onnxlens."""
    register("$name", $class_)
'''

_VISUALIZER_TEST = '''\
"""Does the visualizer keep to the contract, and show what it says?"""

import onnxlens
import pytest
from onnxlens.plugins.testing import check_visualizer

from $module import $class_


@pytest.mark.parametrize("layer", [0, 1])
def test_it_keeps_to_the_contract(layer):
    check_visualizer($class_, layer=layer)


def test_it_shows_the_largest_attention():
    lens = onnxlens.load(provider="cpu")  # the small model that ships
    shown = lens.view($class_(layer=1, head=2), "the cat sat").data()
    _, cache = lens.run_with_cache("the cat sat", names_filter="blocks.1.attn.hook_pattern")
    expected = cache["pattern", 1][0, 2].max(axis=0)  # [K]
    assert [one["attention"] for one in shown] == pytest.approx(expected.tolist())
'''

_FAMILY = '''\
"""Registers the model family `$name`, a plugin of onnxlens; the family is imported when it is used."""

from onnxlens.plugins import hookimpl

ONNXLENS_PLUGIN_API = $api


@hookimpl
def register_families(register):
    """Adds it to onnxlens."""
    register("$name", "$module_model:$class_")
'''

_FAMILY_MODEL = '''\
"""The model family `$name`: what onnxlens has to know to export its checkpoints."""

from onnxlens.export.families.llama import Llama
from transformers import LlamaConfig, LlamaForCausalLM


class $class_(Llama):
    """A Llama under another model_type. Write here what yours is, and where it is from.

    To begin with, this is Llama. A family of another kind derives from `Family` and has its own `check` (what is
    refused), `config` (the shape, in TransformerLens's terms), `parameter_shapes`, `weights` and `module`, made of the
    parts in `onnxlens.export.families.parts`; onnxlens/export/families/llama.py is an example of all of them.
    """

    MODEL_TYPE = "$name"
    CONFIG, REFERENCE = LlamaConfig, LlamaForCausalLM
'''

_FAMILY_TEST = '''\
"""Does the family compute what transformers does, and say truly where its weights are?"""

import pytest
from onnxlens.export.testing import check_family

from $module_model import $class_

SMALL = {
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "hidden_size": 32,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "vocab_size": 300,
    "bos_token_id": 0,
    "eos_token_id": 0,
}


@pytest.mark.parametrize(("groups", "tied"), [(1, True), (2, False), (4, True)])
def test_it_is_what_transformers_computes(groups, tied):
    check_family($class_, {**SMALL, "num_key_value_heads": groups, "tie_word_embeddings": tied})
'''

_CODE = {
    "sampler": (_SAMPLER, _SAMPLER_TEST),
    "visualizer": (_VISUALIZER, _VISUALIZER_TEST),
    "family": (_FAMILY, _FAMILY_TEST),
}
_USE = {
    "sampler": 'onnxlens generate "the cat sat" --sampler "$name=0.2 | temperature=0.8"',
    "visualizer": 'onnxlens view $name "the cat sat" -o view.html',
    "family": "onnxlens export ./a-checkpoint-of-it",
}
_OPTIONS = (
    "`$module.py` is all of it. Options are the fields of the dataclass; what they mean is said beside them, once."
)
_ABOUT = {
    "sampler": _OPTIONS,
    "visualizer": _OPTIONS,
    "family": "`$module_model.py` is the family, and `$module.py` registers it.",
}


def write(name: str, kind: str, folder: str | Path | None = None) -> Path:
    """Writes a package with a plugin that works.

    Args:
        name: what the plugin is used by.
        kind: `sampler`, `visualizer` or `family`.
        folder: the folder to create; `onnxlens-` and the name in the working folder if left out.

    Returns:
        The folder.

    Raises:
        PluginError: the name is not allowed, or is taken by something built in.
        OutputError: the folder exists already, or cannot be made.
    """
    if kind not in _CODE:
        raise PluginError(f"The kind of a plugin must be one of {', '.join(_CODE)}, not {kind!r}.")
    check_name(kind, name)
    if name in Registry(find=False).entries(kind):
        raise PluginError(f"The name {name!r} is taken by a {kind} that is built in; choose another one.")
    module = f"onnxlens_{name.replace('-', '_')}"
    package = f"onnxlens-{name.replace('_', '-').strip('-')}"
    words = {
        "api": API_VERSION,
        "class_": _class(name, kind),
        "kind": kind,
        "extra": "[export]" if kind == "family" else "",
        "module": module,
        "module_model": f"{module}_model",
        "modules": ", ".join(f'"{one}"' for one in [module, *([f"{module}_model"] if kind == "family" else [])]),
        "name": name,
        "package": package,
        "version": version("onnxlens"),
    }
    words |= {"use": Template(_USE[kind]).substitute(words), "about": Template(_ABOUT[kind]).substitute(words)}
    code, test = _CODE[kind]
    files = {
        "pyproject.toml": _PROJECT,
        "README.md": _README,
        f"{words['module']}.py": code,
        f"tests/test_{name.replace('-', '_')}.py": test,
    }
    if kind == "family":
        files[f"{module}_model.py"] = _FAMILY_MODEL
    target = Path(package if folder is None else folder)
    _make(target, {path: Template(text).substitute(words) for path, text in files.items()})
    return target


def _class(name: str, kind: str) -> str:
    """The name of the class, which must differ from all other names in its module."""
    found = "".join(part.capitalize() for part in re.split("[_-]", name))
    taken = re.search(rf"\b{found}\b", "".join(_CODE[kind])) or keyword.iskeyword(found)
    return f"{found}{kind.capitalize()}" if taken else found


def _make(folder: Path, files: dict[str, str]) -> None:
    """Writes a complete folder, or nothing."""
    try:
        target = Path(os.path.abspath(folder.expanduser()))  # noqa: PTH100  # resolve() would follow a link that is in the way
        if os.path.lexists(target):
            raise OutputError(f"{folder} exists already; nothing was written. Name another folder with -o.")
        if not target.parent.is_dir():
            raise OutputError(f"Cannot make {folder}: there is no folder {target.parent}.")
        scratch = target.parent / f".{uuid4().hex}.onnxlens"
        try:
            for path, text in files.items():
                (scratch / path).parent.mkdir(parents=True, exist_ok=True)
                (scratch / path).write_text(text, encoding="utf-8")
            scratch.rename(target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except (OSError, RuntimeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise OutputError(f"Cannot make {folder}: {reason}.") from error
