"""The script that measures the model: its table tells a hit from a miss, and what it writes is what it measured."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from types import ModuleType

import model_script
import numpy as np
import pytest
from checkpoints import END_OF_TEXT, config_entries, random_weights, tokenizer, write_checkpoint
from click.testing import CliRunner

from onnxlens.runtime._bundle.bundle import Bundle
from recipe import grammar


@pytest.fixture
def script() -> ModuleType:
    return model_script.load()


@pytest.mark.parametrize(
    ("value", "bounds", "cells"),
    [
        (1.2994, {"at_most": 1.3}, ("1.299", "at most 1.300")),
        (1.3004, {"at_most": 1.3}, ("1.300 (missed)", "at most 1.300")),
        (0.95, {"at_least": 0.95, "form": ".1%"}, ("95.0 %", "at least 95.0 %")),
        (0.9499, {"at_least": 0.95, "form": ".1%"}, ("94.9 % (missed)", "at least 95.0 %")),
        (0, {"at_most": 0, "form": "d"}, ("0", "at most 0")),
        (1, {"at_most": 0, "form": "d"}, ("1 (missed)", "at most 0")),
        (12345678, {"form": ",d"}, ("12,345,678", "")),
        (0.3, {"form": ".1%"}, ("30.0 %", "")),
    ],
)
def test_a_row_says_whether_it_is_what_is_wanted(
    script: ModuleType, value: float, bounds: dict, cells: tuple[str, str]
) -> None:
    row = script.Row("key", "what", value, note="why", **bounds)
    assert row.cells() == ("what", *cells, "why")
    assert row.met is (None if not cells[1] else "missed" not in cells[0])


def test_text_in_a_table_keeps_its_spaces_and_means_nothing(script: ModuleType) -> None:
    assert script.code(" a|b\n<c>`") == "<code> a&#124;b↵&#60;c&#62;&#96;</code>"
    shown = [{"prompt": "a|*b*", "top": [[" c", 0.5]], "shown": "d"}]
    assert "| a&#124;&#42;b&#42; |" in script.predictions(shown)


def test_only_what_is_between_the_markers_is_written(script: ModuleType) -> None:
    start, end = "<!-- measured by benchmarks/model.py -->", "<!-- end of measurements -->"
    page = f"before\n{start}\nold\n{end}\nafter\n"
    once = script.with_measurements(page, "model.py", "new")
    assert once == page.replace("old", "new")
    assert script.with_measurements(once, "model.py", "new") == once
    with pytest.raises(ValueError, match="The page has no place for measurements"):
        script.with_measurements(page, "other.py", "new")
    card = script.with_measurements((model_script.ROOT / "models" / "README.md").read_text(), script.SCRIPT, "new")
    assert f"{start}\nnew\n{end}" in card


def test_the_prompts_are_ten_different_ones(script: ModuleType) -> None:
    assert len(set(script.PROMPTS)) == len(script.PROMPTS) == 10


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with random weights and room for the questions, which its tokenizer cuts into letters."""
    from onnxlens.export import export

    folder = tmp_path_factory.mktemp("small")
    export(write_checkpoint(folder / "checkpoint", n_layer=2, n_positions=512), folder / "small")
    return folder / "small"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    made = iter(grammar.stories(60))
    for kind in ("docstrings", "stories"):
        for split, count in (("train", 25), ("heldout", 5)):
            text = "".join(next(made)[:300] + END_OF_TEXT for _ in range(count))
            (folder / f"{kind}-{split}.txt").write_text(text)
            np.save(folder / f"{kind}-{split}.npy", np.array(tokenizer().encode(text).ids, np.uint16))
    (folder / "corpus.json").write_text(json.dumps({"date": "2026-11-22", "sources": []}))
    return folder


def test_the_card_and_the_results_say_the_same(
    script: ModuleType, small: Path, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"QUESTIONS": 6, "LENGTHS": (5, 9), "HEADLINE": 9, "SEQUENCES": 4, "NEW": 20}.items():
        monkeypatch.setattr(script, name, value)
    card, results = tmp_path / "README.md", tmp_path / "results.json"
    monkeypatch.setattr(script, "CARD", card)
    monkeypatch.setattr(script, "RESULTS", results)
    monkeypatch.setattr(script, "SHIPPED", small)
    place = "<!-- measured by benchmarks/model.py -->\n<!-- end of measurements -->"
    card.write_text(f"# small\n\n{place}\n\nThe end.\n")
    done = CliRunner().invoke(script.main, [str(small), "--work", str(work), "--threads", "1", "--write"])
    assert done.exit_code == 0, done.output
    measured = json.loads(results.read_text())
    names = {field.name for field in fields(script.Row)}
    rows = [script.Row(**{key: row[key] for key in names}) for row in measured["rows"].values()]
    page = card.read_text()
    assert script.table(rows) in page and script.predictions(measured["predictions"]) in page
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "results.json"]
    assert page.startswith("# small\n") and page.endswith("\nThe end.\n")
    assert "corpus date 2026-11-22" in page
    assert measured["bundle"]["sha256"] == {name: file.sha256 for name, file in Bundle(small).manifest.files.items()}
    found = measured["rows"]
    for kind in ("docstrings", "stories"):
        note = found[f"bits_{kind}_5gram"]["note"]
        bits = dict(re.findall(r"trained on ([a-z ]+) (\d+\.\d+)", note))
        assert set(bits) == {kind, "docstrings and stories"}
        assert found[f"bits_{kind}_5gram"]["value"] == pytest.approx(min(map(float, bits.values())), abs=1e-3)
    for row in rows:
        bounds = script.AT_MOST.get(row.key), script.AT_LEAST.get(row.key)
        assert (row.at_most, row.at_least) == bounds
    assert script.AT_MOST.keys() | script.AT_LEAST.keys() <= found.keys()
    assert found["bytes"]["value"] == sum(path.stat().st_size for path in small.rglob("*") if path.is_file())
    assert found["bits_docstrings"]["value"] > found["bits_docstrings_5gram"]["value"]  # its weights are random
    assert found["below_5gram"]["met"] is False
    assert found["below_5gram"]["value"] == pytest.approx(
        1 - found["bits_docstrings"]["value"] / found["bits_docstrings_5gram"]["value"]
    )
    for name, head in measured["heads"]["strongest"].items():
        assert measured["heads"]["scores"][name][head["layer"]][head["head"]] == pytest.approx(head["score"], abs=1e-4)
    assert np.shape(measured["heads"]["scores"]["induction"]) == (2, 4)


def test_without_a_corpus_it_says_what_is_missing(script: ModuleType, small: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(script.main, [str(small), "--work", str(tmp_path)])
    assert done.exit_code == 1
    assert done.output == f"Error: No corpus in {tmp_path}: run `python -m recipe.corpus`.\n"


def test_only_the_model_that_ships_is_written_about(script: ModuleType, small: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(script.main, [str(small), "--work", str(tmp_path), "--write"])
    assert done.exit_code == 2
    assert "--write is for the model that ships" in " ".join(done.output.split())


def test_a_card_without_markers_is_noticed_before_anything_is_measured(
    script: ModuleType, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "SHIPPED", small)
    monkeypatch.setattr(script, "CARD", tmp_path / "README.md")
    monkeypatch.setattr(script, "measure", None)
    (tmp_path / "README.md").write_text("# small\n")
    done = CliRunner().invoke(script.main, [str(small), "--work", str(tmp_path), "--write"])
    assert done.exit_code == 1
    assert "The page has no place for measurements" in done.output


def test_a_short_context_is_refused(script: ModuleType, bundle: Callable[[str], Path], work: Path) -> None:
    done = CliRunner().invoke(script.main, [str(bundle("base")), "--work", str(work)])
    assert done.exit_code == 1
    assert "base has 48 positions; 50 random tokens said twice after <|endoftext|> need 101." in done.output


def test_files_are_replaced_together_or_not_at_all(script: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "one").write_text("old")
    with pytest.raises(OSError):
        script.replace({tmp_path / "one": "new", tmp_path / "missing" / "two": "new"})
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("one", "old")]


def test_the_number_of_parameters_is_that_of_the_weights(script: ModuleType, bundle: Callable[[str], Path]) -> None:
    for name in ("base", "untied"):
        expected = sum(weight.size for weight in random_weights(config_entries(name)).values())
        assert script.parameters(Bundle(bundle(name))) == expected
