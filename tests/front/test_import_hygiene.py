"""Nothing outside `onnxlens.export` needs PyTorch, and what is not used is not imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

WITHOUT_PYTORCH = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers", "onnxscript", "onnx_ir", "huggingface_hub"):
            raise ModuleNotFoundError(f"refused: {name}", name=name)

sys.meta_path.insert(0, Refuse())
"""

ALL_MODULES = """
import importlib, pkgutil, sys
import onnxlens

def import_all(package):
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__, f"{package}."):
        if module.name not in ("onnxlens.__main__", "onnxlens.export"):
            importlib.import_module(module.name)
            print(module.name)
            if module.ispkg:
                import_all(module.name)
# Each by its own path: an editable install keeps them in different folders.
for package in ("onnxlens", "onnxlens.runtime", "onnxlens.plugins"):
    import_all(package)
# Of the model's recipe, what makes the text and what measures.
for name in ("answers", "corpus", "grammar", "heads", "heldout", "loops", "ngram", "passes", "tasks"):
    importlib.import_module(f"recipe.{name}")
"""


def python(code: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "models"), **environment},
    )


def imported_by(code: str, *arguments: object) -> set[str]:
    """Top-level names of the modules that some code imports."""
    done = python(f"{code}\nimport sys\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))", *arguments)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def test_every_module_outside_export_imports_without_pytorch():
    done = python(WITHOUT_PYTORCH + ALL_MODULES)
    assert done.returncode == 0, done.stderr
    seen = done.stdout.split()
    for name in (
        "onnxlens._lens",
        "onnxlens._commands.export",
        "onnxlens.runtime._running.prepare",
        "onnxlens.plugins.samplers",
    ):
        assert name in seen
    runtime = Path(__file__).parents[2] / "runtime"
    names = (".".join(path.relative_to(runtime).with_suffix("").parts) for path in runtime.rglob("[!_]*.py"))
    assert {f"onnxlens.runtime.{name}" for name in names} <= set(seen)


@pytest.mark.parametrize("culprit", ["import torch", "from transformers import GPT2Config", "import torch.nn as nn"])
def test_a_module_that_does_import_pytorch_is_caught(tmp_path, culprit):
    package = tmp_path / "extra"
    package.mkdir()
    (package / "culprit.py").write_text(f"{culprit}\n")
    more = f"import onnxlens\nonnxlens.__path__.append({str(package)!r})\n"
    done = python(WITHOUT_PYTORCH + more + ALL_MODULES)
    assert done.returncode != 0
    assert "ModuleNotFoundError: refused: t" in done.stderr


def test_what_is_refused_is_there_otherwise():
    """Else the tests above would pass for want of anything to refuse."""
    pytest.importorskip("torch")
    assert python("import torch").returncode == 0
    assert "refused: torch" in python(WITHOUT_PYTORCH + "import torch").stderr


USE = """
import onnxlens, sys
lens = onnxlens.load(sys.argv[1], provider="cpu", threads=1)
assert len(lens.predict("the cat").top) == 10
assert len(list(lens.generate("the cat", max_new_tokens=2, seed=1))) == 2
assert len(lens.run_with_cache("the cat")[1]) == 38
"""


def test_everything_a_user_runs_works_without_pytorch_also_from_an_empty_cache(bundle, tmp_path):
    done = python(WITHOUT_PYTORCH + USE, bundle("base"), ONNXLENS_CACHE=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "arguments",
    [["predict", "a"], ["generate", "a", "-n", "2"], ["hooks"], ["inspect"], ["trace", "a", "-o", "OUT"]],
    ids=lambda arguments: arguments[0],
)
def test_every_command_works_without_pytorch(bundle, tmp_path, arguments):
    arguments = [str(tmp_path / "out") if argument == "OUT" else argument for argument in arguments]
    code = WITHOUT_PYTORCH + "from onnxlens._cli import main\nmain()"
    done = python(code, *arguments, "-m", bundle("base"))
    assert (done.returncode, done.stderr) == (0, "")


def test_exporting_without_pytorch_says_what_to_install(checkpoint, tmp_path):
    code = WITHOUT_PYTORCH + "from onnxlens._cli import main\nmain()"
    done = python(code, "export", checkpoint("base"), tmp_path / "out")
    assert done.returncode == 1
    assert "is not installed: pip install 'onnxlens[export]'" in done.stderr
    assert done.stderr.count("\n") == 1


HEAVY = {"numpy", "onnxruntime", "onnx", "tokenizers", "safetensors", "rich", "torch", "transformers", "llguidance"}


def test_import_onnxlens_imports_nothing_heavy():
    assert imported_by("import onnxlens") & HEAVY == set()
    assert imported_by("import onnxlens\nonnxlens.__all__, dir(onnxlens), onnxlens.__version__") & HEAVY == set()


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_help_imports_nothing_heavy(arguments):
    code = f"from onnxlens._cli import _run\nassert _run({arguments!r}) == 0"
    assert imported_by(code) & HEAVY == set()


def test_llguidance_is_imported_by_the_samplers_that_need_it_alone():
    code = "import sys\nfrom onnxlens._cli import _run\nassert _run(sys.argv[1:]) == 0"
    assert "llguidance" not in imported_by(code, "plugins", "show", "regex")
    assert "llguidance" not in imported_by("from onnxlens.plugins.samplers import Regex\nRegex('a')")
    generating = ("generate", "a", "-n", "1", "--provider", "cpu", "--sampler")
    assert "llguidance" not in imported_by(code, *generating, "top_k=3")
    assert "llguidance" in imported_by(code, *generating, "regex='a'")


def test_predicting_with_a_prepared_bundle_does_not_import_onnx(runner):
    path = runner("base").bundle.path
    code = "import sys\nfrom onnxlens._cli import _run\nassert _run(['predict', 'a', '-m', sys.argv[1]]) == 0"
    imported = imported_by(code, path)
    assert "onnxruntime" in imported
    assert imported & {"onnx", "torch", "transformers", "safetensors"} == set()


def test_the_check_of_what_is_imported_can_fail():
    assert "numpy" in imported_by("import onnxlens\nonnxlens.Runner")


def test_public_names_are_what_they_say():
    import onnxlens

    for name in onnxlens.__all__:
        assert getattr(onnxlens, name).__name__ == name
    assert set(onnxlens.__all__) <= set(dir(onnxlens))
    with pytest.raises(AttributeError, match="module 'onnxlens' has no attribute 'nothing'"):
        _ = onnxlens.nothing
    assert Path(onnxlens.__file__).name == "__init__.py"
