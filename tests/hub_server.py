"""A Hugging Face hub on the loopback interface, which serves local checkpoint folders to `huggingface_hub`.

It answers what downloads ask, and nothing else. The exact headers and error codes are those that
`huggingface_hub` reads in its hf_api.py, file_download.py and utils/_http.py.

    GET       /api/models/{repo}[/revision/{revision}]       what a revision is: commit hash and file names
    GET       /api/models/{repo}/tree/{revision}[/{folder}]  its files, with sizes and hashes
    HEAD, GET /{repo}/resolve/{revision}/{file}              a file, or the part a Range header names

No file is announced as stored in Xet, so `huggingface_hub` downloads over plain HTTP with or without hf_xet.
It reads HF_ENDPOINT when it is imported: a program that is to use this server runs in a process of its own,
with the variables that `environment` returns.
"""

import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

__all__ = ["commit_hash", "environment", "serve"]

# What the hub keeps in LFS, by the .gitattributes that it gives to new repositories.
_LFS_SUFFIXES = {".bin", ".h5", ".msgpack", ".onnx", ".onnx_data", ".pt", ".pth", ".safetensors"}

_REPO = r"(?P<repo>[^/]+(/[^/]+)?)"  # with or without a namespace
_API = re.compile(rf"/api/models/{_REPO}(/(?P<what>revision|tree)/(?P<rev>[^/]+)(/(?P<path>.+))?)?")
_RESOLVE = re.compile(rf"/{_REPO}/resolve/(?P<rev>[^/]+)/(?P<path>.+)")
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")
_CHUNK = 1 << 16  # bytes


@dataclass(frozen=True)
class _File:
    """A file of a repository: where it lies, and its identity in git."""

    path: Path
    size: int  # bytes
    oid: str  # git's hash of the blob, which for an LFS file is the pointer
    sha256: str | None  # of the content, for LFS files only
    pointer_size: int  # bytes; 0 for files that are not in LFS

    @classmethod
    def read(cls, path: Path) -> "_File":
        size = path.stat().st_size
        if path.suffix not in _LFS_SUFFIXES:
            content = path.read_bytes()
            return cls(path, size, _blob_oid(content), None, 0)
        with path.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
        return cls(path, size, _blob_oid(pointer), sha256, len(pointer))

    @property
    def etag(self) -> str:
        return self.sha256 or self.oid


@dataclass(frozen=True)
class _Commit:
    """The state of a repository that a revision names."""

    sha: str
    files: Mapping[str, _File]  # by path in the repository

    @classmethod
    def read(cls, folder: Path) -> "_Commit":
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        files = {path.relative_to(folder).as_posix(): _File.read(path) for path in paths}
        listing = "".join(f"{file.oid} {name}\n" for name, file in files.items())
        return cls(hashlib.sha1(listing.encode()).hexdigest(), files)


class _NotFoundError(Exception):
    """One of the hub's three kinds of 404."""

    def __init__(self, code: str, message: str, commit: _Commit | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.commit = code, message, commit


def _blob_oid(content: bytes) -> str:
    # https://git-scm.com/book/en/v2/Git-Internals-Git-Objects
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def commit_hash(folder: Path) -> str:
    """Returns the 40 hexadecimal digits under which `serve` serves the content of a folder."""
    return _Commit.read(folder).sha


def environment(endpoint: str, home: Path) -> dict[str, str]:
    """Returns the environment for a process that is to use the server, free of this machine's hub settings.

    Args:
        endpoint: The URL that `serve` yielded.
        home: An empty folder for the process's cache of downloads.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("HF_", "HUGGING", "TRANSFORMERS_")) and not name.lower().endswith("_proxy")
    }
    return kept | {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "127.0.0.1",
    }


@contextmanager
def serve(repos: Mapping[str, Path], *, fail_after: int | None = None, fail_times: int | None = None) -> Iterator[str]:
    """Serves folders as model repositories for as long as the context lasts.

    The folders are read, and hashed, on entry and must not change afterwards.

    Args:
        repos: Repository id ("gpt2", "openai-community/gpt2") -> the folder that is its branch `main`. An id
            followed by "@" and a name ("gpt2@v2") gives a further branch or tag. Every state can also be
            asked for by its commit hash (see `commit_hash`).
        fail_after: If given, the connection is closed before the byte at this offset of a file, so that no
            file longer than this ever arrives, however often a client resumes.
        fail_times: How many connections fail in that way before all goes well; None for all of them.

    Yields:
        The endpoint, for HF_ENDPOINT.
    """
    commits: dict[str, dict[str, _Commit]] = {}  # repository id -> revision -> commit
    for name, folder in repos.items():
        repo, _, revision = name.partition("@")
        commit = _Commit.read(folder)
        commits.setdefault(repo, {}).update({revision or "main": commit, commit.sha: commit})

    failures = None if fail_times is None else threading.Semaphore(fail_times)

    class Handler(_Handler):
        def find(self, repo: str, revision: str) -> _Commit:
            if repo not in commits:
                raise _NotFoundError("RepoNotFound", "Repository not found")
            if revision not in commits[repo]:
                raise _NotFoundError("RevisionNotFound", f"Invalid rev id: {revision}")
            return commits[repo][revision]

        def cut(self, start: int, stop: int) -> int:
            if fail_after is None or stop <= fail_after:
                return stop
            if failures is not None and not failures.acquire(blocking=False):
                return stop
            return max(start, fail_after)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        # The poll interval is how long shutdown() waits, in seconds.
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    """One connection with one request: a connection kept alive would be answered after `serve` has ended."""

    protocol_version = "HTTP/1.1"

    def find(self, repo: str, revision: str) -> _Commit:
        """Returns the commit that a revision of a repository names, or raises `_NotFoundError`."""
        raise NotImplementedError

    def cut(self, start: int, stop: int) -> int:
        """Returns before which byte to stop sending a file, where bytes [start, stop) were announced."""
        raise NotImplementedError

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:
        """Keeps the tests' output free of a line for each request."""

    def _answer(self) -> None:
        url = urlsplit(self.path)
        try:
            if match := _API.fullmatch(url.path):
                repo, revision, path = (unquote(match[group] or "") for group in ("repo", "rev", "path"))
                commit = self.find(repo, revision or "main")
                if match["what"] == "tree":
                    recursive = parse_qs(url.query).get("recursive", [""])[0].lower() == "true"
                    self._send_json(_tree(commit, path, recursive))
                else:
                    self._send_json(_info(repo, commit))
            elif match := _RESOLVE.fullmatch(url.path):
                repo, revision, path = (unquote(match[group]) for group in ("repo", "rev", "path"))
                commit = self.find(repo, revision)
                if path not in commit.files:
                    raise _NotFoundError("EntryNotFound", "Entry not found", commit)
                self._send_file(commit, commit.files[path])
            else:
                self._send_json({"error": f"This server does not know {url.path}"}, HTTPStatus.NOT_FOUND)
        except _NotFoundError as error:
            headers = {"X-Error-Code": error.code, "X-Error-Message": error.message}
            if error.commit is not None:
                headers["X-Repo-Commit"] = error.commit.sha
            self._send_json({"error": error.message}, HTTPStatus.NOT_FOUND, headers)

    def _send_head(self, status: HTTPStatus, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()

    def _send_json(
        self, content: Any, status: HTTPStatus = HTTPStatus.OK, headers: Mapping[str, str] | None = None
    ) -> None:
        body = json.dumps(content).encode()
        length = {"Content-Type": "application/json", "Content-Length": str(len(body))}
        self._send_head(status, length | dict(headers or {}))
        if self.command != "HEAD":
            self.wfile.write(body)

    def _send_file(self, commit: _Commit, file: _File) -> None:
        headers = {"X-Repo-Commit": commit.sha, "ETag": f'"{file.etag}"', "Accept-Ranges": "bytes"}
        if file.sha256 is not None:
            headers |= {"X-Linked-Size": str(file.size), "X-Linked-ETag": f'"{file.etag}"'}
        status, start, stop = HTTPStatus.OK, 0, file.size
        if asked := _RANGE.fullmatch(self.headers.get("Range", "")):
            start = int(asked[1])
            stop = min(int(asked[2]) + 1, file.size) if asked[2] else file.size
            if start >= stop:
                headers |= {"Content-Range": f"bytes */{file.size}", "Content-Length": "0"}
                self._send_head(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, headers)
                return
            status = HTTPStatus.PARTIAL_CONTENT
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{file.size}"
        headers |= {"Content-Type": "application/octet-stream", "Content-Length": str(stop - start)}
        self._send_head(status, headers)
        if self.command == "HEAD":
            return
        left = self.cut(start, stop) - start  # bytes
        with file.path.open("rb") as stream:
            stream.seek(start)
            while left > 0 and (chunk := stream.read(min(left, _CHUNK))):
                left -= self.wfile.write(chunk)


def _info(repo: str, commit: _Commit) -> dict[str, Any]:
    siblings = [{"rfilename": name} for name in commit.files]
    return {"id": repo, "sha": commit.sha, "private": False, "tags": [], "siblings": siblings}


def _tree(commit: _Commit, folder: str, recursive: bool) -> list[dict[str, Any]]:
    """Returns the files and folders in a folder, "" for the root, and what is in those if recursive."""
    files = {PurePosixPath(name): file for name, file in commit.files.items()}
    folders = {PurePosixPath()}.union(*(name.parents for name in files))
    root = PurePosixPath(folder)
    if root not in folders:
        raise _NotFoundError("EntryNotFound", f"{folder} does not exist on {commit.sha}", commit)
    below = sorted(
        name
        for name in files.keys() | folders
        if name != root and name.is_relative_to(root) and (recursive or name.parent == root)
    )
    return [_tree_entry(name, files.get(name)) for name in below]


def _tree_entry(name: PurePosixPath, file: _File | None) -> dict[str, Any]:
    if file is None:  # a folder's hash is read by nobody
        return {"type": "directory", "path": str(name), "size": 0, "oid": _blob_oid(bytes(name))}
    entry = {"type": "file", "path": str(name), "size": file.size, "oid": file.oid}
    if file.sha256 is not None:
        entry["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": file.pointer_size}
    return entry
