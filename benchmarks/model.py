"""Measures how good a bundle is on text that it was not trained on, and prints the table of the model card.

    export PYTHONPATH=models
    python benchmarks/model.py                     # the model that ships
    python benchmarks/model.py BUNDLE --work DIR   # another one, on the corpus in DIR
    python benchmarks/model.py --write             # puts the tables into the card, the numbers into tiny-results.json

The bundle is run by onnxlens, without PyTorch. `heldout`, `answers`, `heads` and `loops` in models/recipe/ say what
each measure is. Each row of the table stands for itself: the wanted value is beside the measured one.
"""

from __future__ import annotations

import json
import math
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnxruntime
from pages import with_measurements

import onnxlens
from onnxlens.analysis import head_scores
from onnxlens.runtime.errors import OnnxLensError
from recipe import tasks
from recipe.answers import Vocabulary, answers
from recipe.corpus import KINDS, WORK, token_ids
from recipe.heads import name_movers
from recipe.heldout import held_out, token_bits
from recipe.lexicon import HELD_OUT_PROMPTS
from recipe.loops import greedy, loop
from recipe.ngram import KneserNey
from recipe.passes import next_tokens

MODELS = Path(__file__).parents[1] / "models"
SHIPPED = MODELS / "tiny"
SCRIPT = Path(__file__).name
CARD, RESULTS = MODELS / "README.md", MODELS / "tiny-results.json"

STRIDE = 64
QUESTIONS, SEED = 1000, 0
LENGTHS, HEADLINE, SEQUENCES = (25, 50, 100), 50, 64
NEW, SHOWN = 100, 16  # tokens of a greedy continuation, and how many of them the card shows
PROMPTS = (
    *HELD_OUT_PROMPTS,  # of https://poloclub.github.io/transformer-explainer; the first is the README's, too
    "The function returns",
    "When Mary and John went to the shop, John gave a drink to",
    "Once upon a time there was a girl called Emma.",
    "The keys to the cabinet",
    "Tom had two apples. Lucy gave him three more, so he had",
)
# What is wanted of a row, by its key.
AT_MOST = {
    "bits_docstrings": 1.3,
    "bits_stories": 0.9,
    "loops": 0,
    "bytes": 12_000_000,
    "parameters": 6_000_000,
}
AT_LEAST = {
    "below_5gram": 0.15,
    "indirect_objects": 0.95,
    "agreements": 0.95,
    "closings": 0.95,
    "repeated": 0.9,
    "induction": 0.6,
}


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        key: its name in the results file.
        what: what is measured.
        value: the measured value.
        form: how values are shown.
        at_most: the largest value wanted; None for no such bound.
        at_least: the smallest value wanted.
        note: a remark.
    """

    key: str
    what: str
    value: float
    form: str = ".3f"
    at_most: float | None = None
    at_least: float | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the value meets its bounds; None where it has none."""
        if self.at_most is not None:
            return self.value <= self.at_most
        return self.value >= self.at_least if self.at_least is not None else None

    def cells(self) -> tuple[str, ...]:
        """The line's cells."""
        wanted = ""
        if self.at_most is not None:
            wanted = f"at most {_shown(self.at_most, self.form)}"
        elif self.at_least is not None:
            wanted = f"at least {_shown(self.at_least, self.form)}"
        verdict = {None: "", True: "", False: " (missed)"}[self.met]
        return self.what, _shown(self.value, self.form) + verdict, wanted, self.note


def _shown(value: float, form: str) -> str:
    # Shares are cut off, not rounded: 94.96 % is not 95 %.
    if form.endswith("%"):
        digits = 10 ** (int(form[1:-1]) + 2)
        value = math.floor(value * digits + 1e-9) / digits
    return format(value, form).replace("%", " %")


# Rows


def measured(key: str, what: str, value: float, form: str = ".3f", note: str = "") -> Row:
    """A row with what is wanted of it."""
    return Row(key, what, value, form, AT_MOST.get(key), AT_LEAST.get(key), note)


def texts(lens: onnxlens.Lens, work: Path) -> list[Row]:
    """Bits per byte of held-out text, and those of the 5-gram model."""
    end, context = _end(lens), lens.config.n_ctx
    grams = baselines(lens, work)
    rows = []
    for kind in KINDS:
        text = held_out(lens, work, kind)
        sliding, cut = (
            text.bits_per_byte(token_bits(lens.runner, text.ids, end, stride)) for stride in (STRIDE, context)
        )
        note = (
            f"each token but those of the first window after at least {context - STRIDE} others; in windows that do "
            f"not overlap {cut:.3f}; {text.size:,} bytes, {len(text.ids):,} tokens"
        )
        if kind == "stories":
            note += "; held out by document: the sentences are a grammar's, so this measures the grammar"
        rows.append(measured(f"bits_{kind}", f"bits per byte, held-out {kind}", sliding, note=note))
        best = min(grams[kind].values())
        note = "modified Kneser-Ney on the same tokens, the better of two: " + ", ".join(
            f"trained on {name} {bits:.3f}" for name, bits in grams[kind].items()
        )
        rows.append(
            measured(f"bits_{kind}_5gram", f"bits per byte of a 5-gram model, held-out {kind}", best, note=note)
        )
        if kind == "docstrings":
            what = "how much fewer bits the model needs than the 5-gram model, held-out docstrings"
            rows.append(measured("below_5gram", what, 1 - sliding / best, ".1%"))
    return rows


def baselines(lens: onnxlens.Lens, work: Path) -> dict[str, dict[str, float]]:
    """Bits per byte of 5-gram models, by the held-out text and by what they were trained on: the same kind, and all."""
    texts = {kind: held_out(lens, work, kind) for kind in KINDS}
    ids = {kind: token_ids(work, kind, "train") for kind in KINDS}
    found: dict[str, dict[str, float]] = {kind: {} for kind in KINDS}
    for name, kinds in [*((kind, (kind,)) for kind in KINDS), (" and ".join(KINDS), KINDS)]:
        model = KneserNey(np.concatenate([ids[kind] for kind in kinds]), lens.config.d_vocab, _end(lens))
        for kind in kinds:
            text = texts[kind]
            found[kind][name] = text.bits_per_byte(-np.log2(model.probabilities(text.ids)))
    return found


def questions(lens: onnxlens.Lens, count: int = QUESTIONS, seed: int = SEED) -> list[Row]:
    """Questions with one answer."""
    kinds: list[tuple[str, str, Callable[[int, int], Sequence[tasks.Question]]]] = [
        ("indirect_objects", "indirect object, names that never receive a gift in training", tasks.indirect_objects),
        (
            "agreements",
            "agreement, subjects whose verb never shows their number across a distance in training",
            tasks.agreements,
        ),
        (
            "closings",
            "brackets and quotes that close, words that never are inside one in the made-up texts",
            tasks.closings,
        ),
        ("comparisons", "comparisons and sums, things that training never counts", tasks.comparisons),
    ]
    predict, vocabulary = next_tokens(lens.runner), Vocabulary.of(lens.runner.bundle)
    rows = []
    for key, what, make in kinds:
        asked = make(count, seed)
        found = answers(asked, lens.tokenizer.encode, vocabulary, predict)
        note = f"{len(asked):,} questions; greedy decoding says the answer in {_shown(found.greedy.mean(), '.1%')}"
        if key == "closings":
            quoted = np.array([question.answer.strip() in {'"', "'", "`"} for question in asked])
            shares = [
                (name, found.right[some]) for name, some in (("brackets", ~quoted), ("quotes", quoted)) if some.any()
            ]
            note += "; " + ", ".join(f"{name} {_shown(right.mean(), '.1%')}" for name, right in shares)
        rows.append(measured(key, what, found.share, ".1%", note))
    return rows


def heads(lens: onnxlens.Lens) -> tuple[list[Row], dict[str, Any]]:
    """Repeated random tokens, and what each head does; the numbers of all heads, [layers, heads]."""
    tokens = Vocabulary.of(lens.runner.bundle).ordinary
    found = {
        length: head_scores(lens, length=length, count=SEQUENCES, seed=SEED, tokens=tokens)
        for length in LENGTHS
        if 2 * length < lens.config.n_ctx
    }
    headline = found[HEADLINE]
    movers = name_movers(lens.runner, tasks.indirect_objects(QUESTIONS, SEED), lens.tokenizer.encode)
    scores = {
        "induction": headline.induction,
        "previous_token": headline.previous,
        "duplicate_token": headline.duplicate,
        "name_mover": movers.answer,
        "name_mover_others": movers.others,
    }
    # A head that looks at all names alike moves none.
    chosen_by = {name: scores[name] for name in ("induction", "previous_token", "duplicate_token")}
    chosen_by["name_mover"] = movers.answer - movers.others
    strongest: dict[str, dict[str, Any]] = {}
    for name, score in chosen_by.items():
        layer, head = np.unravel_index(score.argmax(), score.shape)
        strongest[name] = {"layer": int(layer), "head": int(head), "score": float(scores[name][layer, head])}
    mover = strongest["name_mover"]
    notes = ", ".join(
        f"of {length} tokens {_shown(one.accuracy, '.1%')}" for length, one in found.items() if length != HEADLINE
    )
    rows = [
        measured(
            "repeated",
            f"{HEADLINE} random tokens said twice: share of the second time that is predicted",
            headline.accuracy,
            ".1%",
            note=f"{SEQUENCES} sequences, without their first token; {notes}",
        ),
        _head_row("induction", "strongest induction head", strongest),
        _head_row("previous_token", "strongest previous-token head", strongest),
        _head_row("duplicate_token", "strongest duplicate-token head", strongest),
        _head_row(
            "name_mover",
            "most attention from the last token to the indirect object (as name movers do)",
            strongest,
            note=f"; {movers.others[mover['layer'], mover['head']]:.3f} to other names; {movers.asked:,} questions",
        ),
    ]
    matrices = {name: np.round(score, 4).tolist() for name, score in scores.items()}
    return rows, {"strongest": strongest, "scores": matrices}


def _head_row(name: str, what: str, strongest: dict[str, dict[str, Any]], note: str = "") -> Row:
    head = strongest[name]
    where = f"layer {head['layer']}, head {head['head']}"
    return measured(name, what, head["score"], note=where + note)


def continuations(lens: onnxlens.Lens) -> tuple[Row, list[dict[str, Any]]]:
    """Greedy continuations of the prompts: whether they loop, and what they say."""
    shown, looped = [], []
    for prompt in PROMPTS:
        ids = greedy(lens.runner, lens.tokenizer.encode(prompt), NEW)
        found = loop(ids)
        if found:
            looped.append(f"“{prompt}” (period {found[0]} after {found[1]} tokens)")
        best = lens.predict(prompt, top=5).top
        shown.append(
            {
                "prompt": prompt,
                "top": [[candidate.token, candidate.probability] for candidate in best],
                "continuation": lens.to_string(ids),
                "shown": lens.to_string(ids[:SHOWN]),
                "loop": found,
            }
        )
    note = f"{NEW} tokens after each of {len(PROMPTS)} prompts; a loop has a period below 15 tokens"
    note += "".join(f"; {one}" for one in looped)
    return measured("loops", "greedy continuations that fall into a loop", len(looped), "d", note), shown


def parameters(bundle: onnxlens.Bundle) -> int:
    """How many parameters a model has; tied embeddings count once."""
    return bundle.manifest.parameters


def sizes(bundle: onnxlens.Bundle) -> list[Row]:
    """Bytes and parameters."""
    size = sum(path.stat().st_size for path in bundle.path.rglob("*") if path.is_file())
    return [
        measured("bytes", "size of the bundle in bytes", size, ",d"),
        measured("parameters", "parameters", parameters(bundle), ",d"),
    ]


def _end(lens: onnxlens.Lens) -> int:
    end = lens.tokenizer.eos_token_id
    if end is None:
        raise click.ClickException(f"{lens.runner.bundle.name} has no <|endoftext|>, so no document can begin.")
    return end


# Tables


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    lines = ["| what | measured | wanted | |", "| --- | --- | --- | --- |"]
    return "\n".join(lines + [f"| {' | '.join(map(escaped, row.cells()))} |" for row in rows])


def predictions(shown: Sequence[dict[str, Any]]) -> str:
    """The likeliest next tokens and the continuations as a Markdown table."""
    lines = ["| prompt | likeliest next tokens | greedy continuation |", "| --- | --- | --- |"]
    for one in shown:
        best = ", ".join(f"{code(token)} {chance:.1%}" for token, chance in one["top"])
        lines.append(f"| {escaped(one['prompt'])} | {best} | {code(one['shown'])} |")
    return "\n".join(lines)


def escaped(text: str) -> str:
    """Text in a cell of a Markdown table, with nothing in it read as Markdown."""
    for character in "&<>`|*_[]\\":
        text = text.replace(character, f"&#{ord(character)};")
    return text.replace("\n", "↵")


def code(text: str) -> str:
    """The same with its spaces kept."""
    return f"<code>{escaped(text)}</code>"


def results(
    bundle: onnxlens.Bundle, corpus: dict[str, Any], rows: Sequence[Row], found: dict[str, Any], shown: Sequence[Any]
) -> dict[str, Any]:
    """Everything measured, for the results file."""
    return {
        "bundle": {"name": bundle.name, "sha256": {name: file.sha256 for name, file in bundle.manifest.files.items()}},
        "corpus": corpus,
        "versions": _versions(),
        "settings": {"stride": STRIDE, "questions": QUESTIONS, "sequences": SEQUENCES, "seed": SEED},
        "rows": {row.key: {**asdict(row), "met": row.met} for row in rows},
        "heads": found,
        "predictions": shown,
    }


def _versions() -> dict[str, str]:
    return {
        "Python": platform.python_version(),
        "ONNX Runtime": onnxruntime.__version__,
        "NumPy": np.__version__,
        "onnxlens": onnxlens.__version__,
    }


def replace(texts: dict[Path, str]) -> None:
    """Writes files next to their places, and once all are written puts them there; none is ever half written."""
    new = {path: path.with_name(f".{path.name}.new") for path in texts}
    try:
        for path, text in texts.items():
            new[path].write_text(text, encoding="utf-8")
        for path, written in new.items():
            written.replace(path)
    finally:
        for written in new.values():
            written.unlink(missing_ok=True)


def check(lens: onnxlens.Lens) -> None:
    """Checks that a model can be measured at all.

    Raises:
        ValueError: it has too few positions.
    """
    least = 2 * HEADLINE + 1
    if lens.config.n_ctx < least:
        raise ValueError(
            f"{lens.runner.bundle.name} has {lens.config.n_ctx} positions; {HEADLINE} random tokens said twice "
            f"after <|endoftext|> need {least}. Give a bundle with a longer context."
        )


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path, exists=True), default=SHIPPED)
@click.option("--work", type=click.Path(path_type=Path), default=WORK, show_default=True, help="Corpus folder.")
@click.option("--threads", type=int, help="Threads that compute; all cores if not given.")
@click.option("--json", "target", type=click.Path(path_type=Path), help="Write everything measured to this file.")
@click.option("--write", is_flag=True, help=f"Put the tables into models/{CARD.name}, all else into {RESULTS.name}.")
def main(bundle: Path, work: Path, threads: int | None, target: Path | None, write: bool) -> None:
    """Measure BUNDLE on held-out text and print the tables of the model card."""
    if write and bundle.resolve() != SHIPPED.resolve():
        raise click.UsageError(f"--write is for the model that ships, {SHIPPED}; measure {bundle} without it.")
    started = time.perf_counter()
    try:
        if write:
            with_measurements(CARD.read_text(encoding="utf-8"), SCRIPT, "")
        lens = onnxlens.load(bundle, threads=threads)
        check(lens)
        text, found = measure(lens, work)
        click.echo(text)
        files = {target: found} if target else {}
        if write:
            files |= {CARD: with_measurements(CARD.read_text(encoding="utf-8"), SCRIPT, text), RESULTS: found}
        replace(files)
    except (OSError, ValueError, OnnxLensError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{time.perf_counter() - started:.0f} s", err=True)


def measure(lens: onnxlens.Lens, work: Path) -> tuple[str, str]:
    """Measures everything: the text for the card, and the results file."""
    rows = [*texts(lens, work), *questions(lens)]
    about_heads, found = heads(lens)
    about_loops, shown = continuations(lens)
    rows += [*about_heads, about_loops, *sizes(lens.runner.bundle)]
    record = work / "corpus.json"
    corpus = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
    facts = [f"{name} {value}" for name, value in _versions().items()]
    facts += [f"corpus {key} {value}" for key, value in corpus.items() if isinstance(value, str | int)]
    text = "\n\n".join([table(rows), f"Measured with {', '.join(facts)}.", predictions(shown)])
    everything = results(lens.runner.bundle, corpus, rows, found, shown)
    return text, json.dumps(everything, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    main()
