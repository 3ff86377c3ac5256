"""Reads the documentation of installed packages and of Python itself, without importing anything."""

__all__ = ["DISTRIBUTIONS", "STANDARD_LIBRARY", "Source", "Text", "sources", "texts"]

import ast
import inspect
import platform
import re
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

STANDARD_LIBRARY = "python"

# What the project itself installs, as far as it brings more than a little English. A fixed list rather than
# "everything in site-packages": the text must not change with what else somebody has installed.
DISTRIBUTIONS = (
    "anyio", "attrs", "build", "click", "contourpy", "cycler", "execnet", "filelock", "fonttools", "fsspec", "h11",
    "httpcore2", "httpx2", "huggingface-hub", "hypothesis", "idna", "jinja2", "jsonschema", "kiwisolver",
    "markdown-it-py", "matplotlib", "ml-dtypes", "mpmath", "mypy", "networkx", "numpy", "onnx", "onnx-ir",
    "onnxruntime", "onnxscript", "packaging", "pathspec", "pillow", "platformdirs", "pluggy", "protobuf", "pydantic",
    "pydantic-core", "pygments", "pyparsing", "pytest", "pytest-xdist", "python-dateutil", "pyyaml", "referencing",
    "regex", "rich", "ruff", "safetensors", "setuptools", "sortedcontainers", "sympy", "tokenizers", "torch", "tqdm",
    "transformers", "typer", "typing-extensions",
)  # fmt: skip

_SKIPPED = {
    "site-packages",
    "dist-packages",
    "test",
    "tests",
    "testing",
    "idlelib",
    "lib2to3",
    "_vendor",
    "lib-dynload",
    "config",
}
_SKIPPED_FILES = re.compile(
    r"licen|notice|copying|authors|requirement|cmakelists|lorem|tlds|leap|privacy|_ops\.md", re.I
)
_DOCUMENTS = (".rst", ".md", ".txt")
_DOCUMENTING = {"add_docstr", "add_docstr_all", "add_newdoc", "add_chained_docstr"}  # calls that give a docstring


class Text(NamedTuple):
    """One docstring or documentation file."""

    text: str
    starts: bool  # whether a document may begin here: not in the middle of a class


@dataclass(frozen=True)
class Source:
    """A package that text is taken from: its name, version, licence, files in a fixed order, and README."""

    name: str
    version: str
    licence: str
    files: tuple[Path, ...]
    readme: str = ""


def sources() -> list[Source]:
    """Finds the sources of the text.

    Returns:
        The standard library, then every distribution of `DISTRIBUTIONS` in that order.

    Raises:
        FileNotFoundError: If a distribution is not installed.
    """
    packages = [_distribution(name) for name in DISTRIBUTIONS]
    return [_standard_library(), *packages]


def texts(path: Path) -> Iterator[Text]:
    """Yields the texts of a file in the order of its lines; none where it is Python that does not parse."""
    if path.suffix in _DOCUMENTS:
        yield Text(path.read_text(encoding="utf-8", errors="replace"), True)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # other people's invalid escapes
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            return  # test data and templates of other packages
    if path.parts[-2:] == ("pydoc_data", "topics.py"):
        yield from _topics(tree)
    else:
        yield from _docstrings(tree, False, True)


def _docstrings(owner: ast.AST, inside: bool, starts: bool) -> Iterator[Text]:
    """Yields the docstrings of a module, class or function and of all in it.

    Args:
        owner: The node.
        inside: Whether what the owner contains is part of a class.
        starts: Whether a document may begin with the owner's docstring.
    """
    for node in getattr(owner, "body", []):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield Text(inspect.cleandoc(node.value.value), starts)  # also what documents attributes
            starts = False
        elif isinstance(node, ast.ClassDef):
            yield from _docstrings(node, True, not inside)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _docstrings(node, inside, not inside)
        elif isinstance(node, ast.If | ast.Try | ast.With | ast.For):
            yield from _docstrings(node, inside, True)
            for branch in (
                *getattr(node, "handlers", []),
                ast.Module(body=getattr(node, "orelse", []), type_ignores=[]),
            ):
                yield from _docstrings(branch, inside, True)
        elif isinstance(node, ast.Expr | ast.Assign):
            yield from _given(node.value)


def _given(node: ast.expr) -> Iterator[Text]:
    """Yields the docstring that a call gives to something compiled: `add_docstr(torch.abs, "...")`."""
    if not isinstance(node, ast.Call) or ast.unparse(node.func).split(".")[-1].lstrip("_") not in _DOCUMENTING:
        return
    found = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str)]
    if not found:
        return
    yield Text(inspect.cleandoc(max(found, key=len)).replace("{{", "{").replace("}}", "}"), True)


def _topics(tree: ast.Module) -> Iterator[Text]:
    """Yields the language reference, which `help()` shows by topic."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            for topic in ast.literal_eval(node.value).values():
                yield Text(topic, True)


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
    files = [root / str(file) for file in distribution.files or [] if _is_documentation(Path(str(file)))]
    readme = distribution.metadata.json.get("description") or ""
    return Source(name, distribution.version, _licence(distribution), _ordered(root, files), str(readme))


def _is_documentation(file: Path) -> bool:
    if file.suffix in (".py", ".pyi"):
        return True
    folders = file.parts[:-1]
    skipped = any(folder.endswith(("-info", "tests", "test-examples")) for folder in folders)
    return file.suffix in _DOCUMENTS and not skipped and not _SKIPPED_FILES.search(file.name)


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
