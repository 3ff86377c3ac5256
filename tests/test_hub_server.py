"""The loopback hub, checked with `huggingface_hub` itself, in processes that have it as their HF_ENDPOINT."""

import http.client
import json
import subprocess
import sys
import textwrap
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from hub_server import commit_hash, environment, serve

pytest.importorskip("huggingface_hub")

OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy, whatever the environment

PREAMBLE = """
import json
from pathlib import Path
from huggingface_hub import HfApi, hf_hub_download, snapshot_download

def show(value):
    print(json.dumps(value))

def content(folder):
    files = (path for path in Path(folder).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes().hex() for path in files}

def failure(function, *args, **options):
    try:
        return function(*args, **options)
    except Exception as error:
        return [type(error).__name__, str(error)]
"""


def hub(endpoint: str, home: Path, program: str) -> Any:
    """Runs a program against the server and returns what it handed to `show`."""
    done = subprocess.run(
        [sys.executable, "-c", PREAMBLE + textwrap.dedent(program)],
        env=environment(endpoint, home),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def checkpoint(folder: Path, seed: int) -> Path:
    """Writes a folder with the kinds of files there are: text, LFS files, a subfolder, an odd name, empty."""
    (folder / "onnx").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"seed": seed}))
    (folder / "model.safetensors").write_bytes(bytes((i * i + seed) % 251 for i in range(200_000)))
    (folder / "onnx" / "model.onnx").write_bytes(bytes([seed]))
    (folder / "a name #1+é%20.txt").write_text("odd")
    (folder / "empty").touch()
    return folder


def content(folder: Path) -> dict[str, str]:
    """Returns path -> content in hexadecimal, as the function of that name in PREAMBLE does."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes().hex() for path in files}


@pytest.fixture
def first(tmp_path: Path) -> Path:
    return checkpoint(tmp_path / "first", 1)


@pytest.fixture
def second(tmp_path: Path) -> Path:
    return checkpoint(tmp_path / "second", 2)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def test_a_snapshot_is_the_folder(first: Path, home: Path) -> None:
    with serve({"someone/tiny-gpt2": first}) as endpoint:
        seen = hub(
            endpoint,
            home,
            """
            folder = snapshot_download("someone/tiny-gpt2")
            api = HfApi()
            check = api.verify_repo_checksums("someone/tiny-gpt2", revision="main")
            show({
                "folder": folder,
                "content": content(folder),
                "checked": check.checked_count,
                "mismatches": [str(m) for m in check.mismatches],
                "info": [f.rfilename for f in api.model_info("someone/tiny-gpt2").siblings],
                "top": [f.path for f in api.list_repo_tree("someone/tiny-gpt2")],
                "below": [f.path for f in api.list_repo_tree("someone/tiny-gpt2", "onnx")],
            })
            """,
        )
    assert seen["content"] == content(first)
    # Inside the home that was given, and under the commit's hash.
    assert Path(seen["folder"]).relative_to(home).name == commit_hash(first)
    # huggingface_hub recomputes git's and LFS's hashes of what it downloaded.
    assert (seen["checked"], seen["mismatches"]) == (5, [])
    assert sorted(seen["info"]) == sorted(content(first))
    assert seen["top"] == ["a name #1+é%20.txt", "config.json", "empty", "model.safetensors", "onnx"]
    assert seen["below"] == ["onnx/model.onnx"]


def test_patterns_choose_files(first: Path, home: Path) -> None:
    with serve({"tiny": first}) as endpoint:
        seen = hub(endpoint, home, 'show(content(snapshot_download("tiny", allow_patterns=["*.json", "onnx/*"])))')
    assert sorted(seen) == ["config.json", "onnx/model.onnx"]


def test_revisions_are_branches_and_commit_hashes(first: Path, second: Path, home: Path) -> None:
    with serve({"tiny": first, "tiny@refs/pr/2": second}) as endpoint:
        seen = hub(
            endpoint,
            home,
            f"""
            old, new = "{commit_hash(first)}", "{commit_hash(second)}"
            config = "config.json"
            show([
                Path(snapshot_download("tiny", revision="refs/pr/2"), config).read_text(),
                Path(snapshot_download("tiny", revision=old), config).read_text(),
                Path(hf_hub_download("tiny", config)).read_text(),
                Path(hf_hub_download("tiny", config, revision=new)).read_text(),
                HfApi().model_info("tiny", revision="refs/pr/2").sha,
            ])
            """,
        )
    assert [json.loads(text)["seed"] for text in seen[:4]] == [2, 1, 1, 2]
    assert seen[4] == commit_hash(second) != commit_hash(first)


def test_what_is_not_there_is_the_hubs_404(first: Path, home: Path) -> None:
    with serve({"tiny": first}) as endpoint:
        seen = hub(
            endpoint,
            home,
            """
            show([
                failure(snapshot_download, "nobody/nothing"),
                failure(hf_hub_download, "nobody/nothing", "config.json"),
                failure(snapshot_download, "tiny", revision="v9"),
                failure(snapshot_download, "tiny", revision="0" * 40),
                failure(hf_hub_download, "tiny", "config.json", revision="v9"),
                failure(hf_hub_download, "tiny", "vocab.json"),
                failure(lambda: list(HfApi().list_repo_tree("tiny", "additional_chat_templates"))),
            ])
            """,
        )
        with pytest.raises(urllib.error.HTTPError, match="404"):
            OPENER.open(f"{endpoint}/api/datasets/tiny").close()
    assert [name for name, _ in seen] == [
        *["RepositoryNotFoundError"] * 2,
        *["RevisionNotFoundError"] * 3,
        *["RemoteEntryNotFoundError"] * 2,
    ]
    assert "Repository Not Found for url" in seen[0][1]
    assert "Invalid rev id: v9" in seen[2][1]
    assert "Entry Not Found for url" in seen[5][1]


def test_a_broken_connection_is_resumed(first: Path, home: Path) -> None:
    program = """
        import time
        waits = []
        time.sleep = waits.append  # huggingface_hub waits a second before it tries again
        show([content(snapshot_download("tiny")), waits])
    """
    with serve({"tiny": first}, fail_after=150_000, fail_times=1) as endpoint:
        assert hub(endpoint, home, program) == [content(first), [1]]


def test_a_connection_that_always_breaks_is_an_error(first: Path, home: Path) -> None:
    program = """
        import time
        time.sleep = lambda seconds: None
        hf_hub_download("tiny", "config.json")  # short enough to arrive
        show(failure(snapshot_download, "tiny"))
    """
    with serve({"tiny": first}, fail_after=100_000) as endpoint:
        name, text = hub(endpoint, home, program)
    assert name == "RemoteProtocolError"
    assert "peer closed connection" in text


def test_a_connection_breaks_at_the_byte_that_was_given(first: Path) -> None:
    whole = (first / "model.safetensors").read_bytes()
    with serve({"tiny": first}, fail_after=1000, fail_times=2) as endpoint:
        url = f"{endpoint}/tiny/resolve/main/model.safetensors"
        for expected in (whole[:1000], whole[:1000], whole):
            with OPENER.open(url) as response:
                try:
                    body = response.read()
                except http.client.IncompleteRead as error:
                    body = error.partial
            assert body == expected


def test_parts_of_a_file(first: Path) -> None:
    whole = (first / "model.safetensors").read_bytes()

    def get(part: str | None, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
        request = urllib.request.Request(url, headers={"Range": part} if part else {}, method=method)
        with OPENER.open(request) as response:
            return response.status, dict(response.headers), response.read()

    with serve({"tiny": first}) as endpoint:
        url = f"{endpoint}/tiny/resolve/main/model.safetensors"
        status, headers, body = get(None)
        assert (status, body, headers["Content-Length"]) == (200, whole, "200000")
        assert (headers["X-Linked-Size"], headers["X-Linked-ETag"]) == ("200000", headers["ETag"])
        assert headers["X-Repo-Commit"] == commit_hash(first)
        assert get(None, "HEAD") == (200, headers | {"Date": get(None, "HEAD")[1]["Date"]}, b"")
        status, headers, body = get("bytes=5-9")
        assert (status, body, headers["Content-Range"]) == (206, whole[5:10], "bytes 5-9/200000")
        assert get("bytes=199990-")[2] == whole[-10:]
        with pytest.raises(urllib.error.HTTPError, match="416") as caught:
            get("bytes=200000-")
        assert caught.value.headers["Content-Range"] == "bytes */200000"
        caught.value.close()


def test_the_server_ends_with_its_context(first: Path) -> None:
    with serve({"tiny": first}) as endpoint:
        OPENER.open(f"{endpoint}/api/models/tiny").close()
    with pytest.raises(urllib.error.URLError, match="refused"):
        OPENER.open(f"{endpoint}/api/models/tiny")
