"""Fetches a checkpoint from the Hugging Face hub."""

from __future__ import annotations

import errno
import glob
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import logging
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from onnxlens.export._shards import INDEX, WHOLE, shards
from onnxlens.export._tokenizer import OTHER_KINDS
from onnxlens.runtime._process_wide import ProcessWide
from onnxlens.runtime.errors import CheckpointError

__all__ = ["download"]

_SMALL = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "adapter_config.json",  # refused
    *OTHER_KINDS,  # refused unless there is a tokenizer.json
    *(weights + INDEX for weights in WHOLE),
]
_LOCAL = "Or download the checkpoint's files elsewhere and give their folder: onnxlens export ./FOLDER models/NAME"


def download(repo: str, revision: str | None) -> tuple[Path, str]:
    """Downloads a checkpoint, or finds it in the hub's cache on this machine.

    Returns:
        The folder, and the commit that it holds.

    Raises:
        CheckpointError: there is no such repository or revision, or the hub cannot be reached.
    """
    try:
        with _quiet():
            folder = Path(huggingface_hub.snapshot_download(repo, revision=revision, allow_patterns=_SMALL))
            commit = folder.name  # the commit: the revision may move on meanwhile
            # One kind of weights is enough; older repositories have only the pickled one.
            for weights in WHOLE:
                names = [weights, *shards(folder, weights)]
                wanted = [glob.escape(name) for name in names]
                huggingface_hub.snapshot_download(repo, revision=commit, allow_patterns=wanted)
                if any((folder / name).is_file() for name in names):
                    break
    except CheckpointError:
        raise
    except HFValidationError as error:
        raise CheckpointError(f"There is no folder {repo!r}, and it is not a valid hub id either.") from error
    except GatedRepoError as error:
        raise CheckpointError(f"{repo!r} on the hub needs permission; log in with 'hf auth login'.") from error
    except RevisionNotFoundError as error:
        raise CheckpointError(f"{repo!r} on the hub has no revision {revision!r}.") from error
    except RepositoryNotFoundError as error:
        raise CheckpointError(
            f"There is no folder {repo!r}, and no such repository on the hub (or it is private). "
            "Check the spelling; 'openai-community/gpt2' is one that exists."
        ) from error
    except Exception as error:  # the errors of the hub's HTTP library differ between versions
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise CheckpointError(f"The download of {repo!r} cannot be stored: {error}.") from error
        endpoint = huggingface_hub.constants.ENDPOINT
        state = (
            "was not asked, because HF_HUB_OFFLINE is set"
            if huggingface_hub.constants.HF_HUB_OFFLINE
            else "cannot be reached or broke off"
        )
        raise CheckpointError(f"There is no folder {repo!r}, and the hub at {endpoint} {state}. {_LOCAL}") from error
    return folder, commit


@contextmanager
def _silenced() -> Iterator[None]:
    shown, verbosity = not are_progress_bars_disabled(), logging.get_verbosity()
    if shown and not sys.stderr.isatty():
        disable_progress_bars()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if shown:
            enable_progress_bars()


# Hides progress bars in pipes, and the hub library's warnings, which the error sums up.
_quiet = ProcessWide(_silenced)
