"""The real way to the hub: `onnxlens export ORG/NAME` in a process of its own, against the loopback server."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import config_entries, random_weights, tokenizer, write_checkpoint
from hub_server import commit_hash, environment, serve
from huggingface_hub import save_torch_state_dict

import onnxlens
from onnxlens.export import export
from onnxlens.export._checkpoint import read_checkpoint
from onnxlens.runtime._bundle.bundle import Bundle

pytest.importorskip("huggingface_hub")

LOCAL = "give their folder: onnxlens export ./FOLDER models/NAME"


def run(arguments: list[str], endpoint: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs the command line with a hub and a cache of its own, and progress bars where somebody wants them."""
    variables = environment(endpoint, folder / "hf-home")
    del variables["HF_HUB_DISABLE_PROGRESS_BARS"]
    return subprocess.run(
        [sys.executable, "-m", "onnxlens", *arguments],
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        timeout=600,
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


DOWNLOAD = """
import json, sys
from onnxlens.export._hub import download
from onnxlens.runtime.errors import CheckpointError

def outcome(source, revision):
    try:
        return [str(part) for part in download(source, revision)]
    except CheckpointError as error:
        return str(error)

print(json.dumps([outcome(*request) for request in json.loads(sys.argv[1])]))
"""


def download(
    endpoint: str, folder: Path, *requests: tuple[str, str | None], **variables: str
) -> list[tuple[str, str] | str]:
    """For each source and revision the folder and commit found, or the error's text, in a process with its own hub."""
    result = subprocess.run(
        [sys.executable, "-c", DOWNLOAD, json.dumps(requests)],
        env=environment(endpoint, folder / "hf-home") | variables,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    found: list[tuple[str, str] | str] = json.loads(result.stdout)
    return found


def test_the_cache_serves_when_the_hub_is_away(repository: Path, tmp_path: Path) -> None:
    with serve({"tiny-org/tiny": repository}) as endpoint:
        first = download(endpoint, tmp_path, ("tiny-org/tiny", None))
    assert first[0][1] == commit_hash(repository)
    assert download(endpoint, tmp_path, ("tiny-org/tiny", None), HF_HUB_OFFLINE="1") == first
    assert download(endpoint, tmp_path, ("tiny-org/tiny", None)) == first


def test_a_revision_is_honoured(repository: Path, tmp_path: Path) -> None:
    """The server knows one commit; its hash is a revision like any branch or tag."""
    commit = commit_hash(repository)
    with serve({"tiny-org/tiny": repository}) as endpoint:
        ((path, found),) = download(endpoint, tmp_path, ("tiny-org/tiny", commit))
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
        ((path, _),) = download(endpoint, tmp_path, ("old", None))
    assert {file.name for file in Path(path).iterdir()} == {
        "config.json",
        "vocab.json",
        "merges.txt",
        "pytorch_model.bin",
    }


@pytest.mark.parametrize("pickled", [False, True], ids=["safetensors", "pickled"])
def test_a_repository_with_weights_in_parts(tmp_path: Path, pickled: bool) -> None:
    """All parts that the index names are fetched, and no other files of weights."""
    source = write_checkpoint(tmp_path / "source", n_layer=1)
    (source / "model.safetensors").rename(source / "model.fp16.safetensors")
    weights = {name: torch.from_numpy(value) for name, value in random_weights(config_entries(n_layer=1)).items()}
    save_torch_state_dict(weights, source, max_shard_size="30KB", safe_serialization=not pickled)
    if not pickled:
        (source / "pytorch_model.bin").write_bytes(b"not wanted" * 100)
    with serve({"large": source}) as endpoint:
        result = run(["export", "large", "bundle"], endpoint, tmp_path)
    assert result.returncode == 0, result.stderr
    bundle = Bundle(tmp_path / "bundle")
    for name, value in random_weights(config_entries(n_layer=1)).items():
        np.testing.assert_array_equal(bundle.weights[name], value)
    fetched = {path.name for path in (tmp_path / "hf-home").rglob("snapshots/*/*")}
    parts = {path.name for path in source.glob("*-of-*")}
    index = "pytorch_model.bin.index.json" if pickled else "model.safetensors.index.json"
    assert len(parts) > 2
    assert fetched == {"config.json", "tokenizer.json", index, *parts}


def test_an_adapter_on_the_hub(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    (source / "adapter_model.safetensors").write_bytes(b"not wanted")
    with serve({"lora": source}) as endpoint:
        fails(run(["export", "lora"], endpoint, tmp_path), "has an adapter_config.json", "PEFT adapter")


def test_what_the_hub_does_not_have(hub: str, tmp_path: Path) -> None:
    repository, revision, name = download(
        hub, tmp_path, ("tiny-org/tinny", None), ("tiny-org/tiny", "v9"), ("./not/a/folder", None)
    )
    assert repository == (
        "There is no folder 'tiny-org/tinny', and no such repository on the hub (or it is private). "
        "Check the spelling; 'openai-community/gpt2' is one that exists."
    )
    assert revision == "'tiny-org/tiny' on the hub has no revision 'v9'."
    assert name == "There is no folder './not/a/folder', and it is not a valid hub id either."


def test_an_unknown_revision_on_the_command_line(hub: str, tmp_path: Path) -> None:
    result = run(["export", "tiny-org/tiny", "--revision", "v9"], hub, tmp_path)
    fails(result, "'tiny-org/tiny' on the hub has no revision 'v9'.")
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
        ((path, _),) = download(endpoint, tmp_path, ("tiny-org/tiny", None))
    assert (Path(path) / "model.safetensors").read_bytes() == (repository / "model.safetensors").read_bytes()


def test_offline_mode_says_so(tmp_path: Path) -> None:
    (found,) = download("http://127.0.0.1:9", tmp_path, ("tiny-org/tiny", None), HF_HUB_OFFLINE="1")
    assert isinstance(found, str)
    assert "the hub at http://127.0.0.1:9 was not asked, because HF_HUB_OFFLINE is set" in found and LOCAL in found


def test_a_folder_of_that_name_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`tiny-org/tiny` may be a folder beside you; then nobody asks the hub."""
    write_checkpoint(tmp_path / "tiny-org" / "tiny")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("onnxlens.export._checkpoint.download", lambda *args: pytest.fail("the hub was asked"))
    assert read_checkpoint("tiny-org/tiny").source == {"kind": "folder", "id": "tiny"}


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
        pytest.skip(f"needs the Hugging Face hub: {reason}")
    lens = onnxlens.load(export("openai-community/gpt2", tmp_path / "gpt2").path, provider="cpu")
    for prompt, expected in {
        "Data visualization empowers users to": {" visualize": 15.8, " create": 7.3},
        "Artificial Intelligence is transforming the": {" way": 24.6, " world": 20.7},
    }.items():
        found = lens.predict(prompt, top=2)
        assert [token.token for token in found.top] == list(expected)
        for token, percent in zip(found.top, expected.values(), strict=True):
            assert 100 * token.probability == pytest.approx(percent, abs=1.5)
