"""The documents: their examples run, what is made from the code is fresh, links lead somewhere, nothing is left out."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner

import onnxlens
from onnxlens._cli import cli
from onnxlens._commands import NAMES
from onnxlens.plugins.visualizers.builtin import VISUALIZERS
from onnxlens.runtime import errors

ROOT = Path(__file__).parents[2]
EXAMPLES = ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]
LINKED = [*EXAMPLES, "CHANGELOG.md", "CONTRIBUTING.md", "models/README.md"]


def read(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


@pytest.mark.parametrize("document", EXAMPLES)
def test_examples_run_and_what_is_generated_is_fresh(build: ModuleType, document: str, tmp_path: Path) -> None:
    new = build.rebuilt(Path(document), tmp_path)
    changes = "\n".join(difflib.unified_diff(read(document).splitlines(), new.splitlines(), lineterm="", n=1))
    assert build.same(read(document), new), f"{document} is stale, run 'python docs/build.py':\n{changes}"


def test_the_picture_is_fresh(build: ModuleType) -> None:
    assert build.same(read(str(build.PICTURE)), build.picture()), "run 'python docs/build.py'"


@pytest.mark.parametrize("document", EXAMPLES)
def test_every_block_is_of_a_language_that_is_run_or_only_shown(build: ModuleType, document: str) -> None:
    text = read(document)
    assert text.count("```") == 2 * len(build.fences(text))
    assert {fence["language"] for fence in build.fences(text)} <= {"python", "sh", "console", "text", "js", "html", "c"}


def test_every_command_is_documented() -> None:
    for name in cli.list_commands(cli.make_context("onnxlens", ["models"])):
        assert f"\n## onnxlens {name}\n" in read("docs/cli.md")
        for document in ("README.md", "docs/quick-start.md"):
            assert f"onnxlens {name}" in read(document), f"{document} does not mention 'onnxlens {name}'"


def test_every_public_name_is_documented() -> None:
    reference = read("docs/python.md")
    for name in onnxlens.__all__:
        assert f"onnxlens.{name}" in reference, f"docs/python.md has no onnxlens.{name}"
    for name in errors.__all__:
        if isinstance(getattr(errors, name), type):
            assert f"| `{name}` |" in reference


@pytest.mark.parametrize(
    "function",
    [
        lambda a, b=1: None,
        lambda a, *, b, c=2: None,
        lambda a, /, b, **rest: None,
        lambda a, /: None,
        lambda *each, b: None,
        lambda self, a, /, *each, b=3, **rest: None,
    ],
)
def test_a_signature_is_shown_as_it_is_called(build: ModuleType, function: Callable[..., None]) -> None:
    namespace: dict[str, Callable[..., None]] = {}
    is_method = "self" in inspect.signature(function).parameters
    exec(f"def {build._signature('f', function, is_method=is_method)}: pass", namespace)
    shown = namespace["f"]
    expected = [one for one in inspect.signature(function).parameters.values() if one.name != "self"]
    found = inspect.signature(shown).parameters.values()
    assert [(one.name, one.kind, one.default) for one in found] == [
        (one.name, one.kind, one.default) for one in expected
    ]


@pytest.mark.parametrize("document", LINKED)
def test_links_resolve(document: str) -> None:
    text = re.sub(r"^```.*?^```$", "", read(document), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (ROOT / document).parent / name if name else ROOT / document
        assert path.exists(), f"{document} links to {target}, which does not exist"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), flags=re.M)
            slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs, f"{document} links to {target}, which has no such heading"


def test_the_architecture_names_every_module_and_no_other() -> None:
    text = read("docs/architecture.md")
    named = {name.rpartition("/")[2].removesuffix(".py") for name in re.findall(r"`([\w/.]+)`", text)}
    known = {*NAMES, *VISUALIZERS, *(path.stem for path in (ROOT / "onnxlens" / "analysis").glob("*.py"))}
    for folder in ("runtime", "plugins", "export", "onnxlens"):
        modules = {path.relative_to(ROOT / folder).with_suffix("") for path in (ROOT / folder).rglob("*.py")}
        modules = {module for module in modules if "web" not in module.parts}  # the page's own tools
        for module in sorted(modules):
            # A command, an analysis and a visualizer are a module each, and documented where they are used.
            is_one_of_many = module.parent.name in ("_commands", "analysis", "visualizers") and module.name in known
            is_named = module.name in named or module.name == "__init__"
            assert is_named or is_one_of_many, f"docs/architecture.md does not name {folder}/{module}.py"
        for table in re.findall(rf"\| module of `{folder}/[\w/]*`.*?\n((?:\|.*\n)+)", text):
            for name in re.findall(r"`([\w/]+)`", "".join(row.split("|")[1] for row in table.splitlines())):
                place = [one for one in modules if one.name == name.rpartition("/")[2]]
                assert place or name.endswith("/"), f"docs/architecture.md names {name}, which {folder}/ has not"


def test_documents_name_no_folder_of_a_machine() -> None:
    for document in (*LINKED, "docs/images/predict.svg"):
        assert not re.search(r"(?<![\w.])/(home|work|root|tmp|Users)/", read(document)), document


@pytest.fixture
def copy(build: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with two documents only."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text("# Title\n\n```python\nprint(0.5)\n```\n\n```text\n0.5\n```\n")
    (tmp_path / "docs" / "cli.md").write_text(read("docs/cli.md"))
    monkeypatch.setattr(build, "ROOT", tmp_path)
    return tmp_path


def call(build: ModuleType, *arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(build.main, arguments)
    return result.exit_code, result.output


def test_check_names_what_is_stale_and_changes_nothing(build: ModuleType, copy: Path) -> None:
    call(build, "docs/cli.md")
    fresh = (copy / "docs" / "cli.md").read_text()
    altered = fresh.replace("Usage: onnxlens", "Use: onnxlens")
    (copy / "docs" / "cli.md").write_text(altered)
    code, output = call(build, "--check", "README.md", "docs/cli.md")
    assert code == 1
    assert output == "docs/cli.md is stale\nError: Run 'python docs/build.py'.\n"
    assert (copy / "docs" / "cli.md").read_text() == altered
    assert call(build, "docs/cli.md") == (0, "docs/cli.md was updated\n")
    assert (copy / "docs" / "cli.md").read_text() == fresh
    assert call(build, "--check", "README.md", "docs/cli.md") == (0, "")


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("```python\nvalue = 1\nassert value == 2\n```\n", "README.md:3: AssertionError: "),
        ("```sh\necho before\nfalse\necho after\n```\n", "README.md:3: exit code 1 from 'echo before"),
        ("```console\n$ onnxlens predict -m nope x\nfine\n```\n", "README.md:3: exit code 1 from"),
    ],
)
def test_an_example_that_fails_is_named_by_its_line(build: ModuleType, copy: Path, block: str, message: str) -> None:
    (copy / "README.md").write_text(f"\n{block}")
    code, output = call(build, "--check", "README.md")
    assert code == 1
    assert message in output
    assert "\nafter\n" not in output


def test_outputs_are_written(build: ModuleType, copy: Path) -> None:
    text = (
        "```sh\necho 0.25 > number\n```\n\n```console\n$ cat number\nold\n$ pwd | wc -l\n```\n\n"
        "<!-- not run: because -->\n```python\nfail()\n```\n\n"
        "```python\nx = 2\n```\n\n```python\nprint(x)\n```\n\n```text\nold\n```\n\n```text\nkept\n```\n"
    )
    (copy / "README.md").write_text(text)
    assert call(build, "README.md")[0] == 0
    expected = text.replace("number\nold\n$ pwd | wc -l\n", "number\n0.25\n$ pwd | wc -l\n1\n", 1).replace("old", "2")
    assert (copy / "README.md").read_text() == expected


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("' the' 7.113 11.52% ██▊", "' the' 7.112 11.53% ██▉  ", True),
        ('"logit": 7.11269044876', '"logit": 7.11269092559', True),
        ("' the' 7.113", "' the' 7.123", False),
        ("' the' 7.113", "' a' 7.113", False),
        ("4 hook points", "5 hook points", False),
        ("1.5 2.5", "1.5", False),
    ],
)
def test_only_noise_is_taken_for_the_same(build: ModuleType, old: str, new: str, expected: bool) -> None:
    assert build.same(old, new) is expected
