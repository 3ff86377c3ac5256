"""The wheel, installed without PyTorch into an environment of its own and used from another folder."""

import json
import os
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIMIT_MB = 260

pytestmark = pytest.mark.xdist_group("wheel")  # built and installed once

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out, source = tmp_path_factory.mktemp("dist"), tmp_path_factory.mktemp("source") / "onnxlens"
    # From a copy, so that nothing which an earlier build left behind gets in.
    shutil.copytree(
        ROOT,
        source,
        ignore=shutil.ignore_patterns(".*", "build", "dist", "work", "*.egg-info", "__pycache__", "node_modules"),
    )
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(out), str(source)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("environment") / "venv"
    venv.create(folder, with_pip=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--constraint", str(ROOT / "constraints.txt"), str(wheel)], check=True)
    return folder


@pytest.fixture
def run(environment: Path, tmp_path: Path) -> Run:
    def call(*command: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "COV"))}
        program = [str(environment / "bin" / command[0]), *command[1:]]
        return subprocess.run(program, cwd=tmp_path, env=clean, input=stdin, capture_output=True, text=True)

    return call


def test_neither_pytorch_nor_transformers_is_installed(run: Run) -> None:
    listed = json.loads(run("pip", "list", "--format=json").stdout)
    names = {package["name"].lower() for package in listed}
    assert "onnxruntime" in names
    assert not names & {"torch", "transformers", "onnxscript", "onnx-ir", "pytest"}


def test_size_of_the_installation(environment: Path) -> None:
    (site,) = environment.glob("lib/python*/site-packages")
    # What every new environment holds is not ours to count.
    own = [p for p in site.iterdir() if not p.name.startswith(("pip", "setuptools", "_distutils", "pkg_resources"))]
    files = {p for entry in own for p in ([entry] if entry.is_file() else entry.rglob("*"))}
    size = sum(p.stat().st_size for p in files if p.is_file() and "__pycache__" not in p.parts)
    assert size < LIMIT_MB * 1e6, f"{size / 1e6:.0f} MB"


def test_predict_with_the_model_that_ships(run: Run) -> None:
    result = run("onnxlens", "predict", "--json", "The function returns")
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    assert "".join(token["token"] for token in answer["tokens"]) == "The function returns"
    assert sum(candidate["probability"] for candidate in answer["top"]) <= 1


def test_generate_is_reproducible(run: Run) -> None:
    command = ("onnxlens", "generate", "-", "-n", "12", "--top-k", "40", "--seed", "7")
    first, second = (run(*command, stdin="The function returns\n") for _ in range(2))
    assert first.returncode == 0, first.stderr
    assert first.stdout == second.stdout
    assert first.stdout.startswith("The function returns")


def test_trace_from_another_folder(run: Run, tmp_path: Path) -> None:
    result = run("onnxlens", "trace", "Hello world", "--hooks", "blocks.*.attn.hook_pattern", "-o", "hello.safetensors")
    assert result.returncode == 0, result.stderr
    script = (
        "from safetensors.numpy import load_file; f = load_file('hello.safetensors');"
        "print(all(abs(f[k].sum(-1) - 1).max() < 1e-5 for k in f if k.startswith('blocks')), len(f))"
    )
    assert run("python", "-c", script).stdout.split()[0] == "True"


@pytest.mark.parametrize("command", [["hooks"], ["inspect"], ["models"], ["hooks", "blocks.*.attn.*", "--json"]])
def test_commands_that_only_look(run: Run, command: list[str]) -> None:
    result = run("onnxlens", *command)
    assert result.returncode == 0, result.stderr
    assert result.stdout


def test_export_says_what_to_install(run: Run) -> None:
    result = run("onnxlens", "export", "openai-community/gpt2")
    assert result.returncode == 1
    # Which of the missing packages is met first is of no interest.
    assert re.fullmatch(
        r"Error: Exporting needs PyTorch and more, and \w+ is not installed: pip install 'onnxlens\[export\]'\n",
        result.stderr,
    )


def test_python_api(run: Run) -> None:
    script = (
        "import onnxlens, sys; lens = onnxlens.load(provider='cpu', threads=1);"
        "logits, cache = lens.run_with_cache('Hello world', names_filter='blocks.*.attn.hook_pattern');"
        "assert cache['blocks.0.attn.hook_pattern'].shape[1] == lens.config.n_heads;"
        "assert 'torch' not in sys.modules; print(lens.predict('Hello', top=1).top[0].probability)"
    )
    result = run("python", "-c", script)
    assert result.returncode == 0, result.stderr
    assert 0 < float(result.stdout) <= 1
