"""Writes the training text, its token ids and the tokenizer: `python -m recipe.corpus`."""

__all__ = ["END_OF_TEXT", "VOCABULARY", "WORK", "is_held_out", "part", "token_ids", "train_tokenizer", "write_corpus"]

import hashlib
import json
import platform
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from recipe.cleaning import Cleaner
from recipe.docstrings import Source, Text, sources, texts
from recipe.grammar import stories

END_OF_TEXT = "<|endoftext|>"
VOCABULARY = 4096
HELD_OUT = {"docstrings": 50, "stories": 100}  # one document in this many is kept from training
SHORTEST_DOCUMENT = 100  # characters
LONGEST_DOCUMENT = 6_000  # characters; a longer text is cut between paragraphs
SEED = 0  # of the stories
SPLITS = ("train", "heldout")
KINDS = ("docstrings", "stories")
WORK = Path(__file__).parents[1] / "work"


def is_held_out(document: str, kind: str) -> bool:
    """Whether a document is kept from training: decided by its text alone, so equal texts never part ways."""
    return int.from_bytes(hashlib.sha256(document.encode()).digest()[:8]) % HELD_OUT[kind] == 0


def part(work: Path, kind: str, split: str, suffix: str) -> Path:
    """The file of one part of the corpus: kind `docstrings` or `stories`, split `train` or `heldout`."""
    return work / f"{kind}-{split}{suffix}"


def token_ids(work: Path, kind: str, split: str) -> NDArray[np.uint16]:
    """Opens the token ids of one part of the corpus, memory-mapped, [N].

    Raises:
        FileNotFoundError: If the corpus step has not been run.
    """
    path = part(work, kind, split, ".npy")
    if not (path.is_file() and path.with_suffix(".txt").is_file()):
        raise FileNotFoundError(f"No corpus in {work}: run `python -m recipe.corpus`.")
    ids: NDArray[np.uint16] = np.load(path, mmap_mode="r")
    return ids


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


def write_corpus(
    work: Path, found: Iterable[Source], story_count: int, vocabulary: int = VOCABULARY, seed: int = SEED
) -> str:
    """Writes every file of the corpus into a folder, and into `corpus.json` what it was made with.

    Args:
        work: The folder; made where it does not exist.
        found: The packages whose documentation is taken.
        story_count: Number of stories.
        vocabulary: Number of tokens.
        seed: Another seed tells other stories.

    Returns:
        The sha256 of texts and tokenizer: the same for the same versions of the packages.

    Raises:
        ValueError: If a part of the corpus would be empty.
    """
    work.mkdir(parents=True, exist_ok=True)
    (work / "corpus.json").unlink(missing_ok=True)  # without it the files are no corpus, until all are written
    found = list(found)
    parts = _split("docstrings", _documents(found, work / "sources.json"))
    parts |= _split("stories", stories(story_count, seed))
    for (kind, split), documents in parts.items():
        if not documents:
            raise ValueError(
                f"The corpus has no {split} {kind}: give it more text. About 1 in {HELD_OUT[kind]} is held out."
            )
    tokenizer = train_tokenizer((document for kind in KINDS for document in parts[kind, "train"]), vocabulary)
    tokenizer.save(str(work / "tokenizer.json"))
    digest = hashlib.sha256((work / "tokenizer.json").read_bytes())
    end = tokenizer.token_to_id(END_OF_TEXT)
    sizes = {}
    for (kind, split), documents in parts.items():
        text = "".join(document + END_OF_TEXT for document in documents).encode()
        part(work, kind, split, ".txt").write_bytes(text)
        digest.update(text)
        encoded = tokenizer.encode_batch_fast(documents)
        ids = np.concatenate([np.array([*encoding.ids, end], dtype=np.uint16) for encoding in encoded])
        np.save(part(work, kind, split, ".npy"), ids)
        sizes[f"{kind}-{split}"] = {"documents": len(documents), "bytes": len(text), "tokens": len(ids)}
        click.echo(f"{kind} {split}: {len(documents):,} documents, {len(text):,} bytes, {len(ids):,} tokens")
    facts = {
        "sha256": digest.hexdigest(),
        "python": platform.python_version(),
        "tokenizers": metadata.version("tokenizers"),
        "sources": {source.name: source.version for source in found},
        "vocabulary": tokenizer.get_vocab_size(),
        "stories": story_count,
        "seed": seed,
        "parts": sizes,
    }
    (work / "corpus.json").write_text(json.dumps(facts, indent=1) + "\n")
    return digest.hexdigest()


def _documents(found: list[Source], record: Path) -> Iterator[str]:
    """Yields the cleaned documents of all sources; prints and records what each source gave, and what not."""
    cleaner = Cleaner()
    rows = []
    with Progress(console=Console(stderr=True), transient=True) as progress:
        if not progress.console.is_terminal:
            progress.disable = True
        for source in progress.track(found, description="Reading documentation"):
            cleaner.dropped.clear()
            kept, code = cleaner.kept, cleaner.code
            raw = 0
            documents = []
            for original in (list(texts(path)) for path in source.files):
                raw += sum(len(text.text) for text in original)
                documents += _packed((text, cleaner(text.text)) for text in original)
            raw += len(source.readme)
            documents += _packed([(Text(source.readme, True), cleaner(source.readme))])
            short = sum(len(document) for document in documents if len(document) < SHORTEST_DOCUMENT)
            documents = [document for document in documents if len(document) >= SHORTEST_DOCUMENT]
            cleaner.dropped["short"] += short
            kept, code = cleaner.kept - kept - short, cleaner.code - code
            markup = max(raw - kept - cleaner.dropped.total(), 0)
            dropped = {"markup": markup, **dict(cleaner.dropped.most_common())}
            facts = {"name": source.name, "version": source.version, "licence": source.licence}
            sizes = {"found": raw, "kept": kept, "code": code}
            sizes |= {"documents": len(documents), "characters": sum(map(len, documents))}
            rows.append({**facts, **sizes, "dropped": dropped})
            yield from documents
    record.write_text(json.dumps(rows, indent=1) + "\n")
    _print_sources(rows)


def _print_sources(rows: list[dict[str, Any]]) -> None:
    """Prints a table of what each source gave, and the reasons why the rest was dropped."""
    click.echo(
        f"{'source':<40} {'found':>12} {'kept':>12} {'share':>6} {'code':>6} {'documents':>10} {'characters':>12}"
    )
    reasons: Counter[str] = Counter()
    totals: Counter[str] = Counter()
    for row in rows:
        _print_row(f"{row['name']} {row['version']}", row)
        reasons.update(row["dropped"])
        totals.update({key: row[key] for key in ("found", "kept", "code", "documents", "characters")})
    _print_row("all", totals)
    for reason, characters in reasons.most_common():
        click.echo(f"dropped: {reason:<20} {characters:>12,} characters")


def _print_row(name: str, sizes: Mapping[str, Any]) -> None:
    kept, found = sizes["kept"], sizes["found"]
    shares = f"{kept / max(found, 1):>6.0%} {sizes['code'] / max(kept, 1):>6.0%}"
    click.echo(f"{name:<40} {found:>12,} {kept:>12,} {shares} {sizes['documents']:>10,} {sizes['characters']:>12,}")


def _packed(cleaned: Iterable[tuple[Text, str]]) -> list[str]:
    """Joins the texts of one file into documents of a good length: whole classes, in the order of the file."""
    units: list[str] = []  # each what should not be cut: a class with its methods, a function
    for text, prose in cleaned:
        if not prose:
            continue
        if text.starts or not units:
            units.append(prose)
        else:
            units[-1] += "\n\n" + prose
    documents = [""]
    for unit in units:
        if documents[-1] and len(documents[-1]) + len(unit) > LONGEST_DOCUMENT:
            documents.append("")
        for paragraph in unit.split("\n\n"):
            if documents[-1] and len(documents[-1]) + len(paragraph) > LONGEST_DOCUMENT:
                documents.append("")
            documents[-1] += ("\n\n" if documents[-1] else "") + paragraph
    return documents if units else []


def _split(kind: str, documents: Iterable[str]) -> dict[tuple[str, str], list[str]]:
    parts: dict[tuple[str, str], list[str]] = {(kind, split): [] for split in SPLITS}
    for document in dict.fromkeys(documents):  # nothing twice, order kept
        parts[kind, "heldout" if is_held_out(document, kind) else "train"].append(document)
    return parts


@click.command()
@click.option("--work", type=click.Path(path_type=Path), default=WORK, show_default=True, help="Folder to write.")
@click.option("--stories", "story_count", default=60_000, show_default=True, help="Number of stories.")
@click.option("--vocabulary", default=VOCABULARY, show_default=True, help="Number of tokens of the tokenizer.")
def main(work: Path, story_count: int, vocabulary: int) -> None:
    """Write the training text and train its tokenizer.

    The text is the documentation of the project's pinned dependencies and of Python itself, and stories that a
    grammar makes up. Nothing is downloaded.
    """
    try:
        digest = write_corpus(work, sources(), story_count, vocabulary)
    except (FileNotFoundError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"sha256 of the corpus: {digest}")


if __name__ == "__main__":
    main()
