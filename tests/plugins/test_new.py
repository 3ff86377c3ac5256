"""`onnxlens plugins new`: what it writes works, also as a wheel in an environment of its own; and all or nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
USES = {
    "sampler": ["generate", "the cat sat", "-n", "2", "--sampler", "my_plugin=0.5", "--explain", "--json"],
    "visualizer": ["view", "my_plugin", "the cat sat", "--layer", "1", "--json"],
}


@pytest.fixture(scope="module", params=["sampler", "visualizer"])
def made(request, tmp_path_factory) -> tuple[str, Path]:
    """A generated package."""
    from onnxlens.plugins._scaffold import write

    folder = tmp_path_factory.mktemp(request.param) / "onnxlens-my-plugin"
    return request.param, write("my_plugin", request.param, folder)


@pytest.fixture(scope="module")
def environment(made, tmp_path_factory) -> Path:
    """A clean environment with the package's wheel, which sees the packages installed here."""
    _, folder = made
    out = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(folder)]
    subprocess.run(build, check=True, capture_output=True, text=True)
    (wheel,) = out.glob("*.whl")
    place = tmp_path_factory.mktemp("environment") / "venv"
    venv.create(place)
    (site,) = place.glob("lib/python*/site-packages") if os.name != "nt" else place.glob("Lib/site-packages")
    # Through site.addsitedir, so that an editable install of onnxlens works there, too.
    around = sysconfig.get_paths()["purelib"]
    (site / "around.pth").write_text(f"import site; site.addsitedir({around!r})\n")
    python = place / ("Scripts" if os.name == "nt" else "bin") / "python"
    install = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, capture_output=True, text=True)
    return python


def run(python: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    # A pytest that runs this one has no say in it.
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PYTEST", "COV"))}
    return subprocess.run([str(python), *arguments], cwd=cwd, env=clean, capture_output=True, text=True)


@pytest.mark.xdist_group("new-plugins")  # built and installed once
def test_it_is_installed_and_used(made, environment, tmp_path):
    kind, folder = made
    listed = run(environment, "-m", "onnxlens", "plugins", "--json", cwd=tmp_path)
    assert listed.returncode == 0, listed.stderr
    document = json.loads(listed.stdout)
    assert document["broken"] == []
    (mine,) = [entry for entry in document["plugins"] if entry["name"] == "my_plugin"]
    assert (mine["kind"], mine["distribution"]) == (kind, "onnxlens-my-plugin 0.1.0")
    used = run(environment, "-m", "onnxlens", *USES[kind], cwd=tmp_path)
    assert used.returncode == 0, used.stderr
    if kind == "sampler":
        (stage,) = json.loads(used.stdout.splitlines()[0])["explanation"]["stages"]
        assert stage["sampler"] == "MyPlugin(share=0.5)"
        assert stage["removed_tokens"] > 0
    else:
        values = json.loads(used.stdout)
        assert "".join(one["token"] for one in values) == "the cat sat"
        assert all(0 < one["attention"] <= 1 for one in values)
    tested = run(environment, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder), cwd=tmp_path)
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_the_command(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran = command("plugins", "new", "my_view", "--kind", "visualizer")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("onnxlens-my-view is a package with the visualizer my_view. Try it:\n")
    files = {str(one.relative_to(tmp_path)) for one in tmp_path.rglob("*") if one.is_file()}
    folder = "onnxlens-my-view"
    assert files == {f"{folder}/{name}" for name in ("README.md", "pyproject.toml", "onnxlens_my_view.py")} | {
        f"{folder}/tests/test_my_view.py"
    }
    ran = command("plugins", "new", "my_view", "--kind", "visualizer")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == "Error: onnxlens-my-view exists already; nothing was written. Name another folder with -o.\n"
    assert command("plugins", "new", "my_view", "--kind", "visualizer", "-o", "other").code == 0


@pytest.mark.parametrize("name", ["My_View", "", "../x", "a b", "1st", "class", "a-b", "é", "x" * 51, "$name", "a.b"])
def test_names_that_are_none(command, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    ran = command("plugins", "new", "--kind", "sampler", "--", name)
    assert (ran.code, ran.out) == (1, "")
    assert " is not a name for a sampler: use at most 50 small letters" in ran.err
    assert list(tmp_path.iterdir()) == []


def test_names_that_are_taken(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran = command("plugins", "new", "tokens", "--kind", "visualizer")
    assert ran.err == "Error: The name 'tokens' is taken by a visualizer that is built in; choose another one.\n"
    assert list(tmp_path.iterdir()) == []
    assert command("plugins", "new", "tokens", "--kind", "sampler").code == 0  # another kind


def test_wrong_usage(command):
    assert "Missing option '--kind'" in command("plugins", "new", "x").err
    ran = command("plugins", "new", "x", "--kind", "picture")
    assert (ran.code, ran.err) == (
        1,
        "Error: The kind of a plugin must be one of sampler, visualizer, family, not 'picture'.\n",
    )


@pytest.mark.parametrize("what", ["file", "folder", "link"])
def test_what_is_there_stays(command, tmp_path, what):
    target = tmp_path / "target"
    if what == "file":
        target.write_text("mine")
    elif what == "folder":
        target.mkdir()
    else:
        target.symlink_to(tmp_path / "nowhere")
    ran = command("plugins", "new", "x", "--kind", "sampler", "-o", target)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == f"Error: {target} exists already; nothing was written. Name another folder with -o.\n"
    assert list(tmp_path.iterdir()) == [target]


def test_where_no_folder_can_be_made(command, tmp_path):
    ran = command("plugins", "new", "x", "--kind", "sampler", "-o", tmp_path / "no" / "x")
    assert ran.err == f"Error: Cannot make {tmp_path}/no/x: there is no folder {tmp_path}/no.\n"


def test_what_fails_half_way_leaves_nothing(command, tmp_path, monkeypatch):
    write_text = Path.write_text

    def full(self, text, *rest, **options):
        if self.name.startswith("test_"):
            raise OSError(28, "No space left on device")
        return write_text(self, text, *rest, **options)

    monkeypatch.setattr(Path, "write_text", full)
    ran = command("plugins", "new", "x", "--kind", "sampler", "-o", tmp_path / "x")
    assert ran.err == f"Error: Cannot make {tmp_path}/x: No space left on device.\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["sampler", "text", "true", "a__b_", "attended", "np", "option"])
@pytest.mark.parametrize("kind", ["sampler", "visualizer"])
def test_no_name_breaks_what_is_written(tmp_path, name, kind):
    from onnxlens.plugins._registry import Registry
    from onnxlens.plugins._scaffold import write

    folder = write(name, kind, tmp_path / "made")
    known = Registry([folder / f"onnxlens_{name}.py"], find=False)
    assert known.get(kind, name).name == name
    compile((folder / "tests" / f"test_{name}.py").read_text(), "test", "exec")


def test_what_is_written_is_tidy(made):
    _, folder = made
    ruff = Path(sys.executable).with_name("ruff")
    if not ruff.exists():
        pytest.skip("needs ruff")
    for command in (["check", "--select", "E,F,I,W,UP,B"], ["format", "--check"]):
        options = ["--isolated", "--no-cache", "--line-length", "120", "."]
        done = subprocess.run([ruff, *command, *options], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
