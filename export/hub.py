"""Fetches a checkpoint from the Hugging Face hub."""

from __future__ import annotations

import os
from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
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
        folder = Path(huggingface_hub.snapshot_download(repo, revision=revision, allow_patterns=_SMALL))
        commit = folder.name  # what the revision named just now; it may move on while the weights are fetched
        # One kind of weights is enough; older repositories have only the pickled one.
        for weights in ("model*.safetensors*", "pytorch_model.bin"):
            huggingface_hub.snapshot_download(repo, revision=commit, allow_patterns=weights)
            if any(folder.glob(weights)):
                break
    except HFValidationError as error:
        raise CheckpointError(f"There is no folder {repo!r}, and it is no valid hub id either.") from error
    except GatedRepoError as error:
        raise CheckpointError(f"{repo!r} on the hub needs permission; log in with 'hf auth login'.") from error
    except RevisionNotFoundError as error:
        raise CheckpointError(f"{repo!r} on the hub has no revision {revision!r}.") from error
    except RepositoryNotFoundError as error:
        raise CheckpointError(
            f"There is no folder {repo!r}, and no such repository on the hub (or it is private). "
            "Check the spelling; 'openai-community/gpt2' is one that exists."
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, EntryNotFoundError, OSError) as error:
        endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
        raise CheckpointError(
            f"There is no folder {repo!r}, and the hub at {endpoint} cannot be reached or broke off. {_LOCAL}"
        ) from error
    return folder, commit
