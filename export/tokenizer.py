"""Finds a checkpoint's tokenizer, or builds it from the files that older checkpoints have."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from onnxlens.runtime.errors import CheckpointError

__all__ = ["OTHER_KINDS", "read_tokenizer"]

# Files of tokenizers that are not built here: what they are, and what of transformers reads them.
OTHER_KINDS = {
    "vocab.txt": ("a WordPiece (BERT)", "BertTokenizerFast"),
    "spiece.model": ("a SentencePiece", "AutoTokenizer"),
    "tokenizer.model": ("a SentencePiece", "AutoTokenizer"),
    "sentencepiece.bpe.model": ("a SentencePiece", "AutoTokenizer"),
}
_END_OF_TEXT = "<|endoftext|>"


def read_tokenizer(path: Path) -> Tokenizer:
    """Reads tokenizer.json, or vocab.json and merges.txt.

    Args:
        path: a folder with these files, or a tokenizer.json itself.

    Raises:
        CheckpointError: there are no such files, or they are damaged.
    """
    file = path / "tokenizer.json" if path.is_dir() else path
    try:
        if file.is_file():
            return Tokenizer.from_file(str(file))
        if (path / "vocab.json").is_file() and (path / "merges.txt").is_file():
            return _from_vocabulary(path)
    except Exception as error:  # tokenizers raises plain Exception for damaged files
        raise CheckpointError(f"The tokenizer in {path} cannot be read: {error}") from error
    for other, (kind, reader) in OTHER_KINDS.items():
        if (path / other).is_file():
            raise CheckpointError(
                f"{path} has no tokenizer.json, and its {other} is {kind} vocabulary; without tokenizer.json, onnxlens "
                f"reads only GPT-2's vocab.json and merges.txt. Make one with transformers: "
                f"{reader}.from_pretrained(FOLDER).save_pretrained(FOLDER)."
            )
    raise CheckpointError(
        f"{path} has no tokenizer: neither tokenizer.json nor vocab.json and merges.txt. Give one with --tokenizer."
    )


def _from_vocabulary(folder: Path) -> Tokenizer:
    """The byte-level BPE of Radford et al. 2019, as transformers builds it from vocab.json and merges.txt."""
    tokenizer = Tokenizer(models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt")))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    added = folder / "added_tokens.json"
    names = json.loads(added.read_text(encoding="utf-8")) if added.is_file() else {}
    special = [name for name, _ in sorted(names.items(), key=lambda item: item[1])]
    if tokenizer.token_to_id(_END_OF_TEXT) is not None:
        special.insert(0, _END_OF_TEXT)
    tokenizer.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in special])
    for name, number in names.items():
        if tokenizer.token_to_id(name) != number:
            raise ValueError(f"{added.name} gives {name!r} the id {number!r}, which is not the next one that is free")
    return tokenizer
