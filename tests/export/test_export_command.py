"""`onnxlens export`: what it prints, and with which status it ends."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from checkpoints import write_checkpoint

import onnxlens
from onnxlens._cli import main
from onnxlens.runtime._bundle.bundle import Bundle

Folder = Callable[[str], Path]
Output = tuple[int, str, str]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], quick_trace: None) -> Callable[..., Output]:
    """Runs `onnxlens export` in this process; returns status, standard output and standard error."""
    monkeypatch.setattr("signal.signal", lambda number, handler: None)  # pytest keeps its own

    def command(*arguments: str | Path) -> Output:
        monkeypatch.setattr(sys, "argv", ["onnxlens", "export", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert isinstance(ended.value.code, int)
        return (ended.value.code, *capfd.readouterr())

    return command


def test_it_says_what_it_wrote_and_how_exact_it_is(
    run: Callable[..., Output], checkpoint: Folder, tmp_path: Path
) -> None:
    status, out, err = run(checkpoint("base"), tmp_path / "bundle")
    assert (status, err) == (0, "")  # no progress in a pipe
    first, second = out.splitlines()
    assert first == f"{tmp_path / 'bundle'}: 36,608 parameters, 0.2 MB"
    assert second.startswith("42 values compared with PyTorch in 8 cases; largest error ")
    assert " of a value's range, in " in second


def test_json(run: Callable[..., Output], checkpoint: Folder, tmp_path: Path) -> None:
    status, out, err = run(checkpoint("base"), tmp_path / "bundle", "--json")
    assert (status, err) == (0, "")
    report = json.loads(out)
    bundle = Bundle(tmp_path / "bundle")
    assert report.keys() == {"path", "parameters", "storage", "gradients", "bytes", "verification"}
    assert report["gradients"] is False
    assert report["path"] == str(bundle.path)
    assert report["parameters"] == 36_608
    assert report["storage"] == "float32"
    files = (path for path in bundle.path.rglob("*") if path.is_file() and path.name != "onnxlens.json")
    assert report["bytes"] == sum(path.stat().st_size for path in files)
    assert report["verification"] == bundle.manifest.verification


def test_force_and_tokenizer(run: Callable[..., Output], tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "source")
    (source / "tokenizer.json").rename(tmp_path / "mine.json")
    arguments = (source, tmp_path / "bundle", "--tokenizer", tmp_path / "mine.json")
    assert run(*arguments)[0] == 0
    assert run(*arguments) == (
        1,
        "",
        f"Error: The bundle {tmp_path / 'bundle'} exists already; replace it with --force, or give another folder.\n",
    )
    assert run(*arguments, "--force")[0] == 0


def test_a_tokenizer_that_is_not_there(run: Callable[..., Output], checkpoint: Folder, tmp_path: Path) -> None:
    assert run(checkpoint("base"), tmp_path / "bundle", "--tokenizer", tmp_path / "no.json") == (
        1,
        "",
        f"Error: There is no tokenizer {tmp_path / 'no.json'}: name an existing tokenizer.json, or its folder.\n",
    )
    assert not list(tmp_path.iterdir())


def test_names_that_a_terminal_would_obey(run: Callable[..., Output], checkpoint: Folder, tmp_path: Path) -> None:
    name = "evil\x1b[2J\nname"
    status, out, err = run(checkpoint("base"), tmp_path / name)
    assert (status, err) == (0, "")
    assert out.startswith(f"{tmp_path}/evil\\x1b[2J\\nname: ") and out.count("\n") == 2
    status, out, err = run(checkpoint("base"), tmp_path / name)
    assert (status, out) == (1, "")
    assert "evil\\x1b[2J" in err and "\x1b" not in err and err.count("\n") == 1
    status, out, err = run(checkpoint("base"), tmp_path / "caf\udce9")
    assert (status, out) == (1, "")
    assert r"caf\udce9: its name is not UTF-8" in err


def test_an_error_is_one_line(run: Callable[..., Output], tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    status, out, err = run(tmp_path / "source", tmp_path / "bundle")
    assert (status, out) == (1, "")
    assert err == f"Error: {tmp_path / 'source'} is not a checkpoint: it has no config.json.\n"


def test_wrong_usage(run: Callable[..., Output], tmp_path: Path) -> None:
    status, out, err = run()
    assert (status, out) == (2, "")
    assert "Missing argument 'SOURCE'" in err
    status, out, err = run(tmp_path, "--fast")
    assert (status, out) == (2, "")
    assert "No such option" in err and "--fast" in err


def test_help(run: Callable[..., Output]) -> None:
    status, out, _ = run("--help")
    assert status == 0
    for word in (
        "SOURCE",
        "[TARGET]",
        "--revision",
        "--tokenizer",
        "--storage",
        "--force",
        "--json",
        "openai-community/gpt2",
    ):
        assert word in out


def without(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    """Lets a package be one that cannot be imported, and the export be imported anew."""
    monkeypatch.setattr(onnxlens, "export", sys.modules["onnxlens.export"])  # which importing it anew changes
    for name in [name for name in sys.modules if name.split(".")[0] == package or name.startswith("onnxlens.export")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)  # what Python takes for "cannot be imported"


def test_what_is_wrong_with_the_target_is_said_before_pytorch_is_loaded(
    run: Callable[..., Output], checkpoint: Folder, bundle: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, existing = checkpoint("base"), bundle("base")
    without(monkeypatch, "torch")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").touch()
    for target, text in {
        existing: "exists already; replace it with --force",
        source: "the checkpoint's folder",
        tmp_path / "loop": "loop",
        tmp_path / "caf\udce9": "its name is not UTF-8",
        tmp_path / "thesis": "exists and is not a bundle",
    }.items():
        status, out, err = run(source, target)
        assert (status, out) == (1, "")
        assert text in err and "PyTorch" not in err
    assert "PyTorch" in run(source, tmp_path / "new")[2]


@pytest.mark.parametrize("package", ["torch", "transformers", "onnxscript", "huggingface_hub"])
def test_without_pytorch_it_says_what_to_install(
    run: Callable[..., Output], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    without(monkeypatch, package)
    assert run(tmp_path, tmp_path / "bundle") == (
        1,
        "",
        f"Error: Exporting needs PyTorch and more, and {package} is not installed: pip install 'onnxlens[export]'\n",
    )
