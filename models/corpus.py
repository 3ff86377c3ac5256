"""Writes the training text, its token ids and the tokenizer: `python -m onnxlens.models.corpus`."""

__all__ = ["END_OF_TEXT", "VOCABULARY", "WORK", "is_held_out", "part", "train_tokenizer", "write_corpus"]

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import click
import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from onnxlens.models.cleaning import Cleaner
from onnxlens.models.docstrings import Source, docstrings, sources
from onnxlens.models.grammar import stories

END_OF_TEXT = "<|endoftext|>"
VOCABULARY = 4096
HELD_OUT = 100  # one document in this many is kept from training
SPLITS = ("train", "heldout")
KINDS = ("docstrings", "stories")
WORK = Path(__file__).parent / "work"


def is_held_out(document: str) -> bool:
    """Whether a document is kept from training: decided by its text alone, so equal texts never part ways."""
    return int.from_bytes(hashlib.sha256(document.encode()).digest()[:8]) % HELD_OUT == 0


def part(work: Path, kind: str, split: str, suffix: str) -> Path:
    """The file of one part of the corpus: kind `docstrings` or `stories`, split `train` or `heldout`."""
    return work / f"{kind}-{split}{suffix}"


def train_tokenizer(texts: Iterable[str], vocabulary: int = VOCABULARY) -> Tokenizer:
    """Trains a byte-level BPE tokenizer laid out as GPT-2's.

    Args:
        texts: Documents.
        vocabulary: Number of tokens, the last of which is `<|endoftext|>`.

    Returns:
        A tokenizer that encodes any text without loss.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - 1, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([END_OF_TEXT])  # after training, so that it gets the last id, as in GPT-2
    return tokenizer


def write_corpus(work: Path, found: Iterable[Source], story_count: int) -> str:
    """Writes every file of the corpus into a folder.

    Args:
        work: The folder; made where it does not exist.
        found: The packages whose docstrings are taken.
        story_count: Number of stories.

    Returns:
        The sha256 of texts and tokenizer: the same for the same versions of the packages.

    Raises:
        ValueError: If a part of the corpus would be empty.
    """
    work.mkdir(parents=True, exist_ok=True)
    texts = _split("docstrings", _documents(found, work / "sources.json"))
    texts |= _split("stories", stories(story_count))
    for (kind, split), documents in texts.items():
        if not documents:
            raise ValueError(f"The corpus has no {split} {kind}: give it more text. About 1 in {HELD_OUT} is held out.")
    tokenizer = train_tokenizer(document for kind in KINDS for document in texts[kind, "train"])
    tokenizer.save(str(work / "tokenizer.json"))
    digest = hashlib.sha256((work / "tokenizer.json").read_bytes())
    end = tokenizer.token_to_id(END_OF_TEXT)
    for (kind, split), documents in texts.items():
        text = "".join(document + END_OF_TEXT for document in documents).encode()
        part(work, kind, split, ".txt").write_bytes(text)
        digest.update(text)
        encoded = tokenizer.encode_batch(documents)
        ids = np.concatenate([np.array([*encoding.ids, end], dtype=np.uint16) for encoding in encoded])
        np.save(part(work, kind, split, ".npy"), ids)
        click.echo(f"{kind} {split}: {len(documents):,} documents, {len(text):,} bytes, {len(ids):,} tokens")
    return digest.hexdigest()


def _documents(found: Iterable[Source], record: Path) -> Iterator[str]:
    """Yields the cleaned docstrings of all sources, and records what each source gave."""
    cleaner = Cleaner()
    rows = []
    for source in found:
        documents = [document for path in source.files for text in docstrings(path) if (document := cleaner(text))]
        characters = sum(map(len, documents))
        facts = {"name": source.name, "version": source.version, "licence": source.licence}
        rows.append(facts | {"documents": len(documents), "characters": characters})
        click.echo(f"{source.name} {source.version} ({source.licence}): {characters:,} characters")
        yield from documents
    record.write_text(json.dumps(rows, indent=1) + "\n")


def _split(kind: str, documents: Iterable[str]) -> dict[tuple[str, str], list[str]]:
    texts: dict[tuple[str, str], list[str]] = {(kind, split): [] for split in SPLITS}
    for document in dict.fromkeys(documents):  # nothing twice, order kept
        texts[kind, "heldout" if is_held_out(document) else "train"].append(document)
    return texts


@click.command()
@click.option("--work", type=click.Path(path_type=Path), default=WORK, show_default=True, help="Folder to write.")
@click.option("--stories", "story_count", default=60_000, show_default=True, help="Number of stories.")
def main(work: Path, story_count: int) -> None:
    """Write the training text and train its tokenizer.

    The text is the docstrings of the project's pinned dependencies and of Python's standard library, and
    stories that a grammar makes up. Nothing is downloaded.
    """
    try:
        digest = write_corpus(work, sources(), story_count)
    except (FileNotFoundError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"sha256 of the corpus: {digest}")


if __name__ == "__main__":
    main()
