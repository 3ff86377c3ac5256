"""What each command prints, for eyes and for machines."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

import onnxlens
from onnxlens._commands.options import unescaped
from onnxlens.plugins._registry import Registry
from onnxlens.runtime._running.runner import Runner
from onnxlens.runtime._text.token_text import quoted_token
from onnxlens.runtime.errors import InputError


@pytest.fixture
def model(bundle):
    return ["-m", bundle("base"), "--provider", "cpu", "--threads", "1"]


@pytest.fixture(scope="module")
def lens(bundle):
    return onnxlens.load(bundle("base"), provider="cpu", threads=1)


def test_predict_prints_the_tokens_and_a_table(command, model, lens):
    ran = command("predict", "the cat", "--top", 3, *model)
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[0].split("  ")[0] == " ".join(map(repr, lens.to_str_tokens("the cat")))
    assert lines[1].split() == ["next", "token", "id", "logit", "probability"]
    for line, candidate in zip(lines[2:5], lens.predict("the cat", top=3).top, strict=True):
        name = quoted_token(lens.tokenizer.pieces([candidate.id])[0])
        assert line.startswith(name)
        cells = line.removeprefix(name).split()
        assert cells[:3] == [str(candidate.id), f"{candidate.logit:.3f}", f"{candidate.probability:.2%}"]
    assert lines[5].strip() == "base on cpu"


def test_predict_json_is_one_document(command, model, lens):
    ran = command("predict", "the cat", "--top", 300, "--json", *model)
    assert (ran.code, ran.err) == (0, "")
    document = ran.json
    assert (document["model"], document["provider"]) == ("base", "cpu")
    assert [token["id"] for token in document["tokens"]] == lens.to_tokens("the cat")[0].tolist()
    assert sum(candidate["probability"] for candidate in document["top"]) == pytest.approx(1)
    assert set(document["top"][0]) == {"id", "token", "logit", "probability"}


@pytest.mark.parametrize(
    ("arguments", "stdin"),
    [(["the cat"], b"ignored"), (["-"], b"the cat"), ([], b"the cat"), ([], b"the cat\n")],
)
def test_text_comes_from_the_argument_a_dash_or_a_pipe(command, model, arguments, stdin):
    expected = command("predict", "the cat", "--json", *model).json
    assert command("predict", *arguments, "--json", *model, stdin=stdin).json == expected


@pytest.mark.parametrize("stdin", [b"the cat\r\nsat\r\n", b"\xef\xbb\xbfthe cat\nsat\n", b"the cat\rsat"])
def test_a_text_from_any_editor_is_the_text(command, model, stdin):
    expected = command("predict", "the cat\nsat", "--json", *model).json
    assert command("predict", "--json", *model, stdin=stdin).json == expected


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (r"\n", "\n"),
        (r"a\tb\r\\n", "a\tb\r\\n"),
        (r"\x41\u00e9\U0001F600\0", "Aé\U0001f600\0"),
        (r"\d\x4\\", "\\d\\x4\\"),
    ],
)
def test_escapes_in_an_option_stand_for_characters(written, text):
    assert unescaped(written) == text


def test_an_escape_that_is_no_character():
    with pytest.raises(InputError, match=r"^\\ud800 is not a Unicode character\.$"):
        unescaped(r"\ud800")


def test_generation_stops_at_an_escaped_newline(command, model):
    def generated(*stop):
        options = ("-n", "3", "--sampler", r"logit_bias={'\n': 100.0} | greedy", "--json")
        document = json.loads(command("generate", "a", *options, *stop, *model).out.splitlines()[-1])
        return document["text"], document["finish_reason"]

    assert generated() == ("\n\n\n", "length")
    assert generated("--stop", r"\n") == ("", "stop")
    assert generated("--stop", "n") == ("\n\n\n", "length")


@pytest.mark.parametrize(("arguments", "stdin"), [([""], b""), (["-"], b""), ([], b""), ([], b"\n")])
def test_an_empty_text_predicts_from_end_of_text(command, model, arguments, stdin):
    ran = command("predict", *arguments, "--json", *model, stdin=stdin)
    assert ran.code == 0
    assert ran.json["tokens"] == [{"id": 0, "token": "<|endoftext|>"}]


def test_only_one_newline_at_the_end_of_a_pipe_is_left_out(command, model):
    tokens = command("predict", "--json", *model, stdin=b"a\n\n").json["tokens"]
    assert [token["token"] for token in tokens] == ["a", "\n"]


def test_generate_prints_the_text_and_what_follows(command, model, lens):
    expected = lens.generate("the cat", max_new_tokens=8, temperature=0)
    list(expected)
    ran = command("generate", "the cat", "-n", 8, "--temperature", 0, *model)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == f"the cat{expected.text}\n"


def test_generate_json_is_one_document_a_token_and_one_that_sums_up(command, model):
    options = ["-n", 6, "--temperature", 0.8, "--top-k", 40, "--top-p", 0.9, "--seed", 7]
    ran = command("generate", "the cat", *options, "--json", *model)
    *tokens, last = map(json.loads, ran.out.splitlines())
    assert all(set(token) == {"id", "text", "logprob"} for token in tokens)
    assert "".join(token["text"] for token in tokens) == last["text"]
    assert (last["prompt"], last["seed"], last["finish_reason"]) == ("the cat", 7, "length")
    assert len(tokens) == 6
    assert command("generate", "the cat", *options, "--json", *model).out == ran.out
    assert command("generate", "the cat", *options, *model).out == f"the cat{last['text']}\n"


def test_generate_stops(command, model):
    whole = json.loads(command("generate", "a", "-n", 9, "--temperature", 0, "--json", *model).out.splitlines()[-1])[
        "text"
    ]
    stop = whole[3]
    ran = command("generate", "a", "-n", 9, "--temperature", 0, "--stop", "no such", "--stop", stop, "--json", *model)
    last = json.loads(ran.out.splitlines()[-1])
    assert last["text"] == whole[: whole.index(stop)]
    assert last["finish_reason"] == "stop"


def test_generate_slides(command, model):
    ran = command("generate", "a", "-n", 70, "--seed", 3, "--overflow", "slide", "--json", *model)
    assert ran.code == 0
    last = json.loads(ran.out.splitlines()[-1])
    assert len(ran.out.splitlines()) == 71 or last["finish_reason"] == "end_of_text"


def test_hooks_lists_names_shapes_and_meanings(command, bundle):
    ran = command("hooks", "blocks.0.attn.hook_[qp]*", "hook_embed", "-m", bundle("base"))
    assert (ran.code, ran.err) == (0, "")
    lines = [line.split("  ") for line in ran.out.splitlines()]
    cells = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    assert cells == [
        ["hook point", "shape", "meaning"],
        ["hook_embed", "batch pos 32", "token embedding"],
        ["blocks.0.attn.hook_q", "batch pos 4 8", "queries, after the bias, unscaled"],
        [
            "blocks.0.attn.hook_pattern",
            "batch 4 query_pos key_pos",
            ("softmax of the scores: how much each query attends to each key"),
        ],
    ]


def test_hooks_json_has_every_hook_point(command, bundle, lens):
    points = command("hooks", "--json", "-m", bundle("base")).json
    assert [point["name"] for point in points] == list(lens.runner.hook_names)
    assert points[0] == {
        "name": "hook_embed",
        "shape": ["batch", "pos", 32],
        "axes": ["batch", "pos", "d_model"],
        "meaning": "token embedding",
        "on_request": False,
    }
    assert [point["name"] for point in points if point["on_request"]] == [
        "blocks.0.attn.hook_result",
        "blocks.1.attn.hook_result",
    ]


def test_trace_writes_what_was_asked_for(command, model, lens, tmp_path):
    path = tmp_path / "trace.safetensors"
    hooks = ["--hooks", "blocks.*.attn.hook_pattern", "--hooks", "hook_embed"]
    ran = command("trace", "the cat", *hooks, "-o", path, *model)
    assert (ran.code, ran.err) == (0, "")
    length = lens.to_tokens("the cat").shape[1]
    size = f"{4 * length * (2 * lens.config.n_heads * length + lens.config.d_model)} bytes"
    assert ran.out == f"{path}: 3 hook points over {length} tokens, {size}\n"
    _, cache = lens.run_with_cache("the cat", names_filter=["*hook_pattern", "hook_embed"])
    with safe_open(path, "numpy") as file:
        for name, value in cache.items():
            np.testing.assert_array_equal(file.get_tensor(name), value)
        assert json.loads(file.metadata()["str_tokens"]) == lens.to_str_tokens("the cat")


def test_trace_json_and_all_hook_points(command, model, lens, tmp_path):
    ran = command("trace", "-o", tmp_path / "t", "--json", *model, stdin=b"the cat")
    document = ran.json
    assert list(document["hook_points"]) == [point.name for point in lens.hook_points if not point.on_request]
    assert document["hook_points"]["hook_embed"][2] == 32
    assert document["file"] == str(tmp_path / "t")


def test_a_trace_from_the_command_line_opens_as_the_cache_it_is(command, model, lens, tmp_path):
    command("trace", "the cat", "--hooks", "*.hook_resid_post", "--hooks", "hook_*embed", "-o", tmp_path / "t", *model)
    trace = onnxlens.open_trace(tmp_path / "t", model=lens, verify=True)
    _, cache = lens.run_with_cache("the cat", names_filter=["*.hook_resid_post", "hook_*embed"])
    assert list(trace) == list(cache)
    for name, value in cache.items():
        np.testing.assert_array_equal(trace[name], value)
    assert trace.str_tokens == cache.str_tokens == lens.to_str_tokens("the cat")
    assert trace.model_hash == lens.runner.bundle.model_hash


def test_inspect_shows_what_is_in_a_bundle(command, bundle):
    ran = command("inspect", "-m", bundle("base"))
    assert (ran.code, ran.err) == (0, "")
    facts = dict(line.split("  ", 1) for line in ran.out.splitlines() if line[0] != " ")
    facts = {name.strip(): value.strip() for name, value in facts.items()}
    assert facts["path"] == str(bundle("base"))
    assert facts["intact"] == "yes: every file has its SHA-256"
    assert facts["layers"] == "2"
    assert facts["hook points"] == "40"
    assert facts["verified"].startswith("against PyTorch eager float32")
    assert "onnx/model.onnx_data" in ran.out


def test_inspect_json(command, bundle):
    document = command("inspect", "--json", "-m", bundle("base")).json
    assert document["intact"] is True
    assert document["files"]["onnx/model.onnx_data"] == (bundle("base") / "onnx/model.onnx_data").stat().st_size
    assert document["verification"]["errors"]["logits"]["absolute"] < 1e-3


def test_help_and_version(command):
    ran = command("--help")
    assert ran.code == 0
    for name in ("predict", "generate", "hooks", "trace", "export", "inspect", "models"):
        assert f"  {name} " in ran.out
        assert command(name, "--help").code == 0
    assert command("--version").out.startswith("onnxlens, version ")


def test_no_table_is_wider_than_a_terminal_of_80_columns(command, bundle, model, monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "80")
    for arguments in (
        ["predict", "the cat sat on the mat and the hat " * 2, "--top", 20, *model],
        ["hooks", "-m", bundle("base")],
        ["inspect", "-m", bundle("base")],
    ):
        ran = command(*arguments)
        assert ran.code == 0
        assert max(map(len, ran.out.splitlines())) <= 80
        assert "…" not in ran.out  # nothing is cut off


def test_no_table_is_wrapped_or_cut_in_a_pipe(command, bundle, monkeypatch):
    monkeypatch.delenv("COLUMNS")
    ran = command("hooks", "-m", bundle("base"))
    assert len(ran.out.splitlines()) == 1 + len(Runner(bundle("base")).hook_names)  # a heading, and a line for each
    assert max(map(len, ran.out.splitlines())) > 100
    ran = command("plugins")
    assert "…" not in ran.out
    for kind in ("sampler", "visualizer"):
        for name, entry in Registry().entries(kind).items():
            lines = [line.rstrip() for line in ran.out.splitlines() if line.split()[:1] == [name]]
            assert any(line.endswith(f"  {entry.summary}") for line in lines), name


@pytest.mark.parametrize("rounding", [None, [], 3, {"absolute": "a", "relative": 1, "positions": 1}])
def test_inspect_says_nothing_about_a_rounding_that_somebody_edited(command, tmp_path, bundle, rounding):
    folder = Path(shutil.copytree(bundle("base-float16"), tmp_path / "half"))
    manifest = json.loads((folder / "onnxlens.json").read_text())
    manifest["verification"] |= {"rounding": rounding, "cases": None}
    (folder / "onnxlens.json").write_text(json.dumps(manifest))
    ran = command("inspect", "-m", folder)
    assert (ran.code, ran.err) == (0, "")
    assert "rounding" not in ran.out and "verified" not in ran.out
