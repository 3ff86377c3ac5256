"""A bundle's prepared files on this machine, in a cache folder, and sessions on them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import onnxruntime

from onnxlens.runtime._bundle.open_file import OpenFile
from onnxlens.runtime._running.matrix_file import MatrixFile
from onnxlens.runtime._running.providers import CPU, Provider, open_session, session_options
from onnxlens.runtime._running.session import Session
from onnxlens.runtime.errors import BundleError

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["EMBEDDING", "OPTIMISED", "PLAIN_REQUEST", "UNEMBEDDING", "Prepared"]

# The files: the graph with all hook points, what is compiled of it for the request that reads none, W_E, and the
# transpose of W_U where that is another matrix (on the CPU only).
OPTIMISED, PLAIN_REQUEST, EMBEDDING, UNEMBEDDING = "prepared.onnx", "plain.onnx", "embedding.bin", "unembedding.bin"

_WEIGHTS = f"{OPTIMISED}_data"  # what the graphs read; those of small models have everything inside
_REMEDY = "Delete its folder; the next start makes it again."


class Prepared:
    """A bundle prepared for one provider on this machine.

    Its files are opened at once and kept open, so that the checked files are those that are used, even if the folder is
    removed.

    Args:
        folder: where its files lie; graphs compiled from it find their weights there.
        provider: the provider for which it was prepared.
        what: the model's name, for errors.

    Raises:
        BundleError: a file cannot be opened.
    """

    def __init__(self, folder: Path, provider: Provider, what: str) -> None:
        self.folder, self.provider, self._what = folder, provider, what
        self._files: dict[str, OpenFile] = {}
        with self._opening():
            for name in (OPTIMISED, PLAIN_REQUEST, EMBEDDING, UNEMBEDDING, _WEIGHTS):
                with suppress(FileNotFoundError):  # not every model has all of them
                    self._files[name] = OpenFile(folder / name, remedy=_REMEDY)

    @cached_property
    def graph(self) -> ModelProto:
        """The optimised graph, without weights.

        Raises:
            BundleError: it cannot be read.
        """
        import onnx  # takes 0.3 s, and a plain pass does not need it

        with self._opening():
            return onnx.load_from_string(self._file(OPTIMISED).read())

    def open(self, graph: ModelProto, threads: int | None, *, takes_turns: bool = False) -> Session:
        """Opens a session on what was cut from the graph; `threads` and `takes_turns` as in `session_options`.

        Raises:
            BundleError: ONNX Runtime cannot open it, or the prepared weights were cut or overwritten.
        """
        return self._open(graph.SerializeToString(), threads, takes_turns)

    def open_plain(self, threads: int | None, *, profile: Path | None = None) -> Session:
        """Opens a session on the graph of the request that reads no hook point; errors likewise.

        Args:
            threads: as in `session_options`.
            profile: the beginning of the name of a file to which ONNX Runtime writes the time of each node.
        """
        return self._open(self._file(PLAIN_REQUEST).read(), threads, False, profile)

    @property
    def plain_graph(self) -> ModelProto:
        """The graph of the request that reads no hook point, without weights; errors as in `graph`."""
        import onnx

        with self._opening():
            return onnx.load_from_string(self._file(PLAIN_REQUEST).read())

    def open_matrix(self, name: str, width: int) -> MatrixFile:
        """Opens `EMBEDDING` or `UNEMBEDDING`, whose rows are that wide; errors likewise."""
        return MatrixFile(self._file(name), width)

    def _open(self, graph: bytes, threads: int | None, takes_turns: bool, profile: Path | None = None) -> Session:
        weights = self._files.get(_WEIGHTS)

        def check() -> None:
            if weights is not None:
                weights.check()

        def start() -> onnxruntime.InferenceSession:
            check()
            real = weights.real_path() if weights is not None else None
            options = session_options(threads, real.parent if real is not None else None, takes_turns=takes_turns)
            if profile is not None:
                options.enable_profiling, options.profile_file_prefix = True, str(profile)
            if weights is not None and (real is None or real.name != _WEIGHTS):
                # Its path is gone; from memory, ONNX Runtime takes a copy, for which the memory must stay till then.
                mapped = weights.map()
                options.add_external_initializers_from_files_in_memory([_WEIGHTS], [mapped], [weights.size])
            with self._opening():
                return open_session(graph, options, self.provider)

        return Session(start, check=check, survives=self.provider is CPU)

    def _file(self, name: str) -> OpenFile:
        if name not in self._files:
            raise BundleError(
                f"The prepared files of {self._what} are incomplete: {self.folder / name} is missing. {_REMEDY}"
            )
        return self._files[name]

    @contextmanager
    def _opening(self) -> Iterator[None]:
        """Turns errors in a `with` block into one that says that the prepared model cannot be opened."""
        try:
            yield
        except Exception as error:
            if isinstance(error, OSError) or type(error).__module__.startswith(("onnxruntime", "google.protobuf")):
                reason = " ".join(str(error).split())[:300]
                raise BundleError(
                    f"Cannot open the prepared files of {self._what} in {self.folder}: {reason}. If that folder was "
                    "altered, delete it; the next start makes it again."
                ) from error
            raise
