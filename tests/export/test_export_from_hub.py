"""The real way to the hub: `onnxlens export ORG/NAME` in a process of its own, against the loopback server."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import config_entries, random_weights, tokenizer, write_checkpoint
from hub_server import commit_hash, environment, serve
from onnxlens.runtime.bundle import Bundle

pytest.importorskip("huggingface_hub")

LOCAL = "give their folder: onnxlens export ./FOLDER models/NAME"


def run(arguments: list[str], endpoint: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs the command line with a hub and a cache of its own."""
    return subprocess.run(
        [sys.executable, "-m", "onnxlens", *arguments],
        cwd=folder,
        env=environment(endpoint, folder / "hf-home") | {"HF_HUB_DISABLE_PROGRESS_BARS": "0"} | variables,
        capture_output=True,
        text=True,
        timeout=120,
    )


def fails(result: subprocess.CompletedProcess[str], *parts: str) -> None:
    """Checks for one line on standard error, status 1, and nothing else."""
    assert result.returncode == 1, result
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ") and result.stderr.count("\n") == 1, result.stderr
    for part in parts:
        assert part in result.stderr


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository as the hub has them: with a model card, other frameworks' weights, and a pickle."""
    folder = write_checkpoint(tmp_path_factory.mktemp("hub") / "tiny", n_layer=1)
    (folder / "README.md").write_text("# A model card")
    (folder / "tf_model.h5").write_bytes(b"not wanted" * 100)
    (folder / "pytorch_model.bin").write_bytes(b"not wanted" * 100)
    return folder


@pytest.fixture
def hub(repository: Path) -> Iterator[str]:
    with serve({"tiny-org/tiny": repository}) as endpoint:
        yield endpoint


def test_export_of_a_hub_id(hub: str, repository: Path, tmp_path: Path) -> None:
    result = run(["export", "tiny-org/tiny", "--json"], hub, tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""  # no progress bars in a pipe
    report = json.loads(result.stdout)
    assert report["path"] == str(tmp_path / "models" / "tiny")
    commit = commit_hash(repository)
    bundle = Bundle(tmp_path / "models" / "tiny", verify=True)
    assert bundle.manifest.source == {"kind": "hub", "id": "tiny-org/tiny", "revision": "main", "commit": commit}
    for name, value in random_weights(config_entries(n_layer=1)).items():
        np.testing.assert_array_equal(bundle.weights[name], value)
    fetched = {path.name for path in (tmp_path / "hf-home").rglob("snapshots/*/*")}
    assert fetched == {"config.json", "tokenizer.json", "model.safetensors"}

    again = run(["export", "tiny-org/tiny"], hub, tmp_path)
    fails(again, f"The bundle {bundle.path} exists already; replace it with --force, or give another folder.")


def test_the_cache_serves_when_the_hub_is_away(hub: str, repository: Path, tmp_path: Path) -> None:
    """One fetch by huggingface_hub, then an export of the same revision without a hub."""
    fetch = "from huggingface_hub import snapshot_download; snapshot_download('tiny-org/tiny')"
    subprocess.run(
        [sys.executable, "-c", fetch], env=environment(hub, tmp_path / "hf-home"), check=True, capture_output=True
    )
    result = run(["export", "tiny-org/tiny", "out"], hub, tmp_path, HF_HUB_OFFLINE="1")
    assert result.returncode == 0, result.stderr
    assert Bundle(tmp_path / "out").manifest.source["commit"] == commit_hash(repository)


def download(source: str, endpoint: str, folder: Path, revision: str | None = None) -> Any:
    """What `read_checkpoint` finds, in a process that has its own hub: quicker than a whole export."""
    program = (
        "import json, sys\n"
        "from onnxlens.export.hub import download\n"
        "path, commit = download(*json.loads(sys.argv[1]))\n"
        "print(json.dumps([str(path), commit]))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, json.dumps([source, revision])],
        env=environment(endpoint, folder / "hf-home"),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_a_revision_is_honoured(repository: Path, tmp_path: Path) -> None:
    """The server knows one commit; its hash is a revision like any branch or tag."""
    commit = commit_hash(repository)
    with serve({"tiny-org/tiny": repository}) as endpoint:
        path, found = download("tiny-org/tiny", endpoint, tmp_path, commit)
    assert found == commit
    assert json.loads((Path(path) / "config.json").read_text())["n_layer"] == 1


def test_a_repository_with_a_pickle_only(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "source", n_layer=1)
    (source / "model.safetensors").unlink()
    (source / "tokenizer.json").unlink()
    tokenizer().model.save(str(source))
    weights = {name: torch.from_numpy(value) for name, value in random_weights(config_entries(n_layer=1)).items()}
    torch.save(weights, source / "pytorch_model.bin")
    with serve({"old": source}) as endpoint:
        path, _ = download("old", endpoint, tmp_path)
    assert {file.name for file in Path(path).iterdir()} == {
        "config.json",
        "vocab.json",
        "merges.txt",
        "pytorch_model.bin",
    }


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (
            ["tiny-org/tinny"],
            ["There is no folder 'tiny-org/tinny', and no such repository on the hub", "'openai-community/gpt2' is one"],
        ),
        (["tiny-org/tiny", "--revision", "v9"], ["'tiny-org/tiny' on the hub has no revision 'v9'."]),
        (["./not/a/folder"], ["There is no folder './not/a/folder', and it is no valid hub id either."]),
    ],
    ids=["repository", "revision", "name"],
)
def test_what_the_hub_does_not_have(hub: str, tmp_path: Path, arguments: list[str], parts: list[str]) -> None:
    fails(run(["export", *arguments], hub, tmp_path), *parts)
    assert not (tmp_path / "models").exists()


def test_the_hub_cannot_be_reached(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
        result = run(["export", "tiny-org/tiny"], endpoint, tmp_path)
    fails(result, f"There is no folder 'tiny-org/tiny', and the hub at {endpoint} cannot be reached", LOCAL)
    assert not (tmp_path / "models").exists()


def test_the_connection_breaks_in_the_middle_of_a_file(repository: Path, tmp_path: Path) -> None:
    with serve({"tiny-org/tiny": repository}, fail_after=50_000) as endpoint:
        result = run(["export", "tiny-org/tiny"], endpoint, tmp_path)
    fails(result, f"the hub at {endpoint} cannot be reached or broke off", LOCAL)
    assert not (tmp_path / "models").exists()


def test_a_connection_that_breaks_once_is_taken_up_again(repository: Path, tmp_path: Path) -> None:
    with serve({"tiny-org/tiny": repository}, fail_after=50_000, fail_times=1) as endpoint:
        path, _ = download("tiny-org/tiny", endpoint, tmp_path)
    assert (Path(path) / "model.safetensors").read_bytes() == (repository / "model.safetensors").read_bytes()


def test_offline_mode_says_so(tmp_path: Path) -> None:
    result = run(["export", "tiny-org/tiny"], "http://127.0.0.1:9", tmp_path, HF_HUB_OFFLINE="1")
    fails(result, "There is no folder 'tiny-org/tiny'", "HF_HUB_OFFLINE", LOCAL)


def test_a_folder_of_that_name_goes_first(tmp_path: Path, checkpoint: Callable[[str], Path]) -> None:
    """`tiny-org/tiny` may be a folder beside you; then nobody asks the hub."""
    shutil.copytree(checkpoint("base"), tmp_path / "tiny-org" / "tiny")
    (tmp_path / "tiny-org" / "tiny" / "config.json").write_text("{}")
    result = run(["export", "tiny-org/tiny"], "http://127.0.0.1:9", tmp_path)
    fails(result, "tiny-org/tiny/config.json: model_type is None")


def reachable(host: str) -> str:
    """Why a host cannot be reached; nothing if it can."""
    try:
        socket.create_connection((host, 443), timeout=3).close()
    except OSError as error:
        return str(error)
    return ""


@pytest.mark.hub
def test_the_released_gpt2(tmp_path: Path) -> None:
    """Facts from the project's shared data; the order of the first two tokens and about 1.5 percentage points."""
    if reason := reachable("huggingface.co"):
        pytest.skip(f"huggingface.co cannot be reached: {reason}")
    import onnxlens
    from onnxlens.export import export

    lens = onnxlens.load(export("openai-community/gpt2", tmp_path / "gpt2").path, provider="cpu")
    for prompt, expected in {
        "Data visualization empowers users to": {" visualize": 15.8, " create": 7.3},
        "Artificial Intelligence is transforming the": {" way": 24.6, " world": 20.7},
    }.items():
        found = lens.predict(prompt, top=2)
        assert [token.text for token in found.tokens] == list(expected)
        for token, percent in zip(found.tokens, expected.values(), strict=True):
            assert 100 * token.probability == pytest.approx(percent, abs=1.5)
