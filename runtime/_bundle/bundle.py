"""A bundle on disk: a folder with a manifest, graphs, weights and a tokenizer, and the checks that it is whole."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from onnxlens.runtime._bundle.config import ModelConfig
from onnxlens.runtime._bundle.description import ModelDescription
from onnxlens.runtime._bundle.generation_config import GENERATION_CONFIG, end_tokens
from onnxlens.runtime._bundle.hooks import sizes
from onnxlens.runtime._bundle.json_file import JsonFileError, parse_json
from onnxlens.runtime._bundle.manifest import Manifest
from onnxlens.runtime._bundle.model_facts import ModelFacts
from onnxlens.runtime._bundle.named_weights import NamedWeights, in_block
from onnxlens.runtime._bundle.open_file import OpenFile
from onnxlens.runtime._bundle.tensor_file import TensorEntry
from onnxlens.runtime._bundle.weight_view import WeightView
from onnxlens.runtime._bundle.weights import WeightsFile, stored_dtype
from onnxlens.runtime._escape import cut, quoted
from onnxlens.runtime.errors import BundleError

if TYPE_CHECKING:
    from onnxlens.runtime._text.tokenizer import Tokenizer

__all__ = [
    "CONFIG",
    "GRADIENTS_GRAPH",
    "HOOKS_GRAPH",
    "PLAIN_GRAPH",
    "TOKENIZER",
    "WEIGHTS",
    "Bundle",
    "sha256_of",
]

PLAIN_GRAPH = "onnx/model.onnx"
HOOKS_GRAPH = "onnx/model_hooks.onnx"
GRADIENTS_GRAPH = "onnx/model_gradients.onnx"  # not in every bundle
WEIGHTS = "onnx/model.onnx_data"
CONFIG = "config.json"
TOKENIZER = "tokenizer.json"

_REQUIRED = (PLAIN_GRAPH, HOOKS_GRAPH, WEIGHTS, CONFIG, TOKENIZER)
_JSON_LIMIT = 20_000_000  # bytes
_MOST_BYTES = 1_000_000_000  # of all files but the weights
_REMEDY = "Export or copy the bundle again."


class Bundle:
    """An exported model on disk.

    Opening one checks that every file is there with its stated size, that all but the weights have their stated
    SHA-256, that the weights' header has its own, and that weights and hook table fit the configuration.

    Its files are opened once and kept open. So whatever is read from a bundle was checked when it was opened, even
    after the folder was replaced, renamed or deleted. A file that is cut or overwritten while in use is an error, and
    never gives another model's numbers.

    Args:
        path: the bundle's folder.
        verify: also compare the SHA-256 of the whole weights file, which reads all of it; and when the bundle is run,
            the hash of every file that was prepared of it.

    Attributes:
        path: the folder, absolute.
        verified: as `verify`.
        manifest: what `onnxlens.json` says.
        config: the model's shape and kind.
        description: all that the manifest says of the model.

    Raises:
        BundleError: the folder is not a bundle, or something in it is missing, altered or does not fit.
    """

    def __init__(self, path: str | Path, *, verify: bool = False) -> None:
        if not isinstance(path, str | os.PathLike):
            raise BundleError(f"A bundle is named by its folder's path, not {path!r:.100}.")
        self.path = Path(path).expanduser().resolve()
        self.manifest = Manifest.read(self.path)
        self._files: dict[str, OpenFile] = {}
        self.verified = verify
        self._check_files(whole=verify)
        described = ModelDescription.from_dict(vars(self.manifest), origin=f"the manifest of {self.path}")
        self.config: ModelConfig = described.cfg
        self.description = replace(described, weights=self._checked_views())
        blocks = {found[0] for name in self.description.weights if (found := in_block(name)) is not None}
        if blocks and blocks != set(range(self.config.n_layers)):
            raise BundleError(
                f"The weights in the manifest of {self.path} are those of {len(blocks)} blocks, and its 'cfg' says "
                f"'n_layers' {self.config.n_layers}."
            )

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles the path; where it is read, the same model must be there."""
        return bundle_at, (self.path, self.model_hash)

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def weights_bytes(self) -> int:
        """Size of the weights file in bytes."""
        return self.manifest.files[WEIGHTS].size

    @property
    def has_gradients(self) -> bool:
        """Whether it was exported with the graph of its gradients."""
        return GRADIENTS_GRAPH in self.manifest.files

    @cached_property
    def weights(self) -> WeightsFile:
        """All weights by the checkpoint's names: memory-mapped where stored as float32, else widened at each access."""
        return WeightsFile(self._files[WEIGHTS])

    @cached_property
    def named_weights(self) -> NamedWeights:
        """All weights by TransformerLens's names and in its shapes."""
        return NamedWeights(self.weights, self.description)

    @cached_property
    def model_hash(self) -> str:
        """The SHA-256 of the manifest's SHA-256 of weights and graph with hook points: equal where both are."""
        files = self.manifest.files
        return hashlib.sha256(
            "".join(f"{files[name].sha256}\n" for name in (WEIGHTS, HOOKS_GRAPH)).encode()
        ).hexdigest()

    @cached_property
    def facts(self) -> ModelFacts:
        """What explains activations of this model; see `ActivationCache`."""
        return ModelFacts(
            self.name,
            self.model_hash,
            self.description,
            self.named_weights,
            lambda: self.tokenizer,
            source=_Source(self.path, self.model_hash),
        )

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of its tokenizer.json."""
        from onnxlens.runtime._text.tokenizer import Tokenizer

        path, content = self.path / TOKENIZER, self.read(TOKENIZER)
        return Tokenizer(
            path, self.end_tokens, self.config.d_vocab, start_token_id=self.config.bos_token_id, content=content
        )

    @cached_property
    def end_tokens(self) -> tuple[int, ...]:
        """The tokens that end a text: what generation_config.json says, or config.json where there is no such file."""
        generation, origin = None, str(self.path / GENERATION_CONFIG)
        if GENERATION_CONFIG in self.manifest.files:
            generation = self._entries(GENERATION_CONFIG)
        config = self._entries(CONFIG).get("eos_token_id")
        return end_tokens(generation, config, self.config.d_vocab, origin=origin)

    def read(self, name: str) -> bytes:
        """Returns the content of one of its files, such as `onnx/model_hooks.onnx`, as it was when it was opened.

        Raises:
            BundleError: the manifest does not list it, or it was cut or overwritten since.
        """
        if name not in self._files:
            raise BundleError(f"The manifest of {self.path} does not list {name}. Export the model again.")
        return self._files[name].read()

    def verify(self, progress: Callable[[str], None] | None = None) -> None:
        """Compares the SHA-256 of every file with the manifest.

        Args:
            progress: told the name of each file before it is read.

        Raises:
            BundleError: a file is missing or altered.
        """
        self._check_files(whole=True, progress=progress)

    def _entries(self, name: str) -> dict[str, Any]:
        """The entries of a JSON object in one of its files."""
        if (record := self.manifest.files.get(name)) and record.size > _JSON_LIMIT:
            raise BundleError(
                f"{self.path / name} cannot be read: it has {record.size:,} bytes, and no file of its kind needs more "
                f"than {_JSON_LIMIT:,}."
            )
        try:
            entries = parse_json(self.read(name))
        except JsonFileError as error:
            raise BundleError(f"{self.path / name} cannot be read: {error}.") from error
        if not isinstance(entries, dict):
            raise BundleError(f"{self.path / name} does not hold a JSON object.")
        return entries

    def _check_files(self, *, whole: bool, progress: Callable[[str], None] | None = None) -> None:
        for name in _REQUIRED:
            if name not in self.manifest.files:
                raise BundleError(f"The manifest of {self.path} does not list {name}. Export the model again.")
        besides = sum(record.size for name, record in self.manifest.files.items() if name != WEIGHTS)
        if besides > _MOST_BYTES:  # all of which would be read each time it is opened
            raise BundleError(
                f"The manifest of {self.path} names {besides:,} bytes besides the weights, and a bundle has at most "
                f"{_MOST_BYTES:,}."
            )
        for name, record in self.manifest.files.items():
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise BundleError(f"The manifest of {self.path} names a file outside the bundle: {quoted(name)}.")
            if progress:
                progress(name)
            path = self.path / name
            file = self._files.get(name) or self._open(name)
            self._files[name] = file
            if file.size != record.size:
                state = "truncated" if file.size < record.size else "altered"
                raise BundleError(
                    f"{path} is {state}: it has {file.size} bytes, the manifest says {record.size}. {_REMEDY}"
                )
            quick = name == WEIGHTS and not whole
            found = self.weights.header_sha256 if quick else file.sha256()
            if found != (record.header_sha256 if quick else record.sha256):
                raise BundleError(
                    f"{path} is not the file that was exported: its SHA-256 differs from the manifest's. {_REMEDY}"
                )

    def _open(self, name: str) -> OpenFile:
        path = self.path / name
        try:
            return OpenFile(path, remedy=_REMEDY, sha256=self.manifest.files[name].sha256)
        except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # ValueError: no file can have that name
            raise BundleError(
                f"The bundle {self.path} is incomplete: {name} is missing. Export or copy it again."
            ) from error
        except OSError as error:
            raise BundleError(f"{path} cannot be read: {error.strerror}. {_REMEDY}") from error

    def _checked_views(self) -> dict[str, WeightView]:
        """The table of weights, each of which was found in the weights file with the shape that the model needs."""
        size, views = sizes(self.config), {}
        for name, entries in self.manifest.weights.items():
            try:
                view = views[name] = WeightView.from_dict(entries)
                shape = tuple(size[axis] for axis in view.axes)
                if view.tensor is not None and view.shape(self._checked_tensor(view.tensor).shape) != shape:
                    raise ValueError(f"its shape is not {list(shape)}")
            except (KeyError, TypeError, ValueError) as error:
                what = f"no {error}" if isinstance(error, KeyError) else cut(str(error), 300)
                raise BundleError(
                    f"Weights and manifest of {self.path} do not fit: {quoted(name)} cannot be taken from the weights "
                    f"file ({what}). {_REMEDY}"
                ) from error
        return views

    def _checked_tensor(self, name: str) -> TensorEntry:
        entry = self.weights.entries[name]
        expected = stored_dtype(self.manifest.storage, entry.shape)
        if entry.dtype != expected:
            raise ValueError(
                f"{name} is stored as {entry.dtype}, expected {expected} where the manifest says 'storage': "
                f"'{self.manifest.storage}'"
            )
        return entry


@lru_cache(maxsize=4)  # so that results which are unpickled one by one share the open files
def bundle_at(path: Path, model_hash: str) -> Bundle:
    """Opens the bundle that was pickled.

    Raises:
        BundleError: it is not there, damaged, or another model.
    """
    bundle = Bundle(path)
    if bundle.model_hash != model_hash:
        raise BundleError(f"The bundle {path} now holds another model than the one that was pickled.")
    return bundle


@dataclass(frozen=True)
class _Source:
    """Makes a bundle's facts in another process."""

    path: Path
    model_hash: str

    def __call__(self) -> ModelFacts:
        return bundle_at(self.path, self.model_hash).facts


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
