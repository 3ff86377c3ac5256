"""Reads the docstrings of installed packages and of Python's standard library, without importing anything."""

__all__ = ["DISTRIBUTIONS", "STANDARD_LIBRARY", "Source", "docstrings", "sources"]

import ast
import platform
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

STANDARD_LIBRARY = "python"

# What the project itself installs, as far as it brings more than a little English. A fixed list rather than
# "everything in site-packages": the text must not change with what else somebody has installed.
DISTRIBUTIONS = (
    "anyio", "attrs", "build", "click", "filelock", "fsspec", "huggingface-hub", "hypothesis",
    "jsonschema", "markdown-it-py", "ml-dtypes", "mpmath", "mypy", "networkx", "numpy", "onnx", "onnx-ir",
    "onnxruntime", "onnxscript", "packaging", "platformdirs", "pluggy", "pydantic", "pygments", "pytest",
    "pytest-xdist", "referencing", "rich", "safetensors", "setuptools", "sympy", "tokenizers", "torch",
    "tqdm", "transformers", "typer",
)  # fmt: skip

_SKIPPED = {"site-packages", "dist-packages", "test", "idlelib", "lib2to3", "_vendor"}


@dataclass(frozen=True)
class Source:
    """A package that text is taken from: its name, version, licence and Python files in a fixed order."""

    name: str
    version: str
    licence: str
    files: tuple[Path, ...]


def sources() -> list[Source]:
    """Finds the sources of the text.

    Returns:
        The standard library, then every distribution of `DISTRIBUTIONS` in that order.

    Raises:
        FileNotFoundError: If a distribution is not installed.
    """
    packages = [_distribution(name) for name in DISTRIBUTIONS]
    return [_standard_library(), *packages]


def docstrings(path: Path) -> Iterator[str]:
    """Yields the docstrings of a Python file in the order of its lines; none where it does not parse."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # other people's invalid escapes
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            return  # test data and templates of other packages
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    owners = [node for node in ast.walk(tree) if isinstance(node, kinds)]
    for owner in sorted(owners, key=lambda node: getattr(node, "lineno", 0)):
        if text := ast.get_docstring(owner):
            yield text


def _standard_library() -> Source:
    root = Path(sysconfig.get_path("stdlib"))
    files = _ordered(root, list(root.rglob("*.py")))
    return Source(STANDARD_LIBRARY, platform.python_version(), "PSF-2.0", files)


def _distribution(name: str) -> Source:
    try:
        distribution = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        raise FileNotFoundError(
            f"The corpus takes text from '{name}', which is not installed. Install the project's pinned dependencies."
        ) from None
    root = Path(str(distribution.locate_file("")))
    files = [root / str(file) for file in distribution.files or [] if file.suffix == ".py"]
    return Source(name, distribution.version, _licence(distribution), _ordered(root, files))


def _ordered(root: Path, files: list[Path]) -> tuple[Path, ...]:
    """Sorts by the path below the root, so that the order is the same on every machine."""
    inside = [file for file in files if _SKIPPED.isdisjoint(file.relative_to(root).parts) and file.is_file()]
    return tuple(sorted(inside, key=lambda file: file.relative_to(root).as_posix()))


def _licence(distribution: metadata.Distribution) -> str:
    """The licence as the package states it: an SPDX expression, else a short text, else a classifier."""
    fields = distribution.metadata.json
    for stated in (fields.get("license_expression"), fields.get("license")):
        if isinstance(stated, str) and "\n" not in stated:
            return stated
    classifiers = [line for line in fields.get("classifier", []) if line.startswith("License ::")]
    return classifiers[0].rsplit(" :: ", 1)[-1] if classifiers else "see the package"
