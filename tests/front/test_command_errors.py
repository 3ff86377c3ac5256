"""What the command line says of bad input: one line on stderr, exit code 1 or 2, and no traceback."""

from __future__ import annotations

import shutil

import pytest


@pytest.fixture
def model(bundle):
    return ["-m", bundle("base"), "--provider", "cpu", "--threads", "1"]


def check_error(ran, expected: str) -> None:
    assert ran.code == 1
    assert ran.out == ""
    assert ran.err.startswith(f"Error: {expected}")
    assert ran.err.count("\n") == 1
    assert ran.err.endswith("\n")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["predict", "a" * 49], "The text is 49 tokens long, and this model has 48 positions; shorten it."),
        (["predict", "a", "--top", 0], "top must be a whole number of at least 1, not 0."),
        (["predict", "a", "--threads", 0], "threads must be a whole number of at least 1, not 0."),
        (["generate", "a", "-n", 0], "max_new_tokens must be a whole number of at least 1, not 0."),
        (["generate", "a", "-n", 48], "The prompt has 1 tokens and 48 more were asked for, 49 in all; this"),
        (["generate", "a", "--temperature", -1], "temperature must be a number of at least 0.0, not -1.0."),
        (["generate", "a", "--temperature", "nan"], "temperature must be a number of at least 0.0, not nan."),
        (["generate", "a", "--top-k", 0], "top_k: k must be a whole number of at least 1, not 0."),
        (["generate", "a", "--top-p", 2], "top_p: p must be a number of at most 1.0, not 2.0."),
        (["generate", "a", "--seed", -1], "seed must be a whole number of at least 0, not -1."),
        (["generate", "a", "--stop", ""], "A stop string must be a text of at least one character."),
        (["generate", "a", "--overflow", "wrap"], "overflow must be 'error' or 'slide', not 'wrap'."),
        (["trace", "a", "-o", "x", "--hooks", "hook_x"], "Unknown hook point 'hook_x'."),
        (["trace", "a", "-o", "/no/where/x"], "Cannot write /no/where/x: there is no folder /no/where."),
        (["predict", "a", "--provider", "tpu"], "Unknown provider 'tpu'; expected one of auto, cpu, cuda."),
    ],
)  # fmt: skip
@pytest.mark.parametrize("json", [[], ["--json"]], ids=["eyes", "json"])
def test_what_cannot_be_done_is_one_line(command, model, arguments, expected, json):
    check_error(command(arguments[0], *model, *arguments[1:], *json), expected)


def test_a_number_that_is_refused_is_no_wrong_usage(command, model):
    check_error(command("analyze", "dla", "a", "--neurons", -1, *model), "--neurons must be at least 0, not -1.")


def test_an_unknown_hook_point_of_hooks(command, bundle):
    ran = command("hooks", "blocks.12.attn.hook_q", "-m", bundle("base"))
    check_error(ran, "Unknown hook point 'blocks.12.attn.hook_q': this model has blocks 0 to 1. Did you mean")
    assert "'blocks.1.attn.hook_q'?" in ran.err


@pytest.mark.parametrize("name", ["predict", "generate"])
def test_standard_input_that_is_not_utf8(command, model, name):
    check_error(
        command(name, *model, stdin=b"caf\xe9 au lait"),
        "Standard input cannot be read: it is not UTF-8 (byte 3 is 0xe9).",
    )


def test_an_argument_that_is_not_utf8(command, model):
    check_error(
        command("predict", "caf\udce9", *model),
        "The text is not valid Unicode: a lone surrogate at character 3. Give UTF-8 text.",
    )


def test_cuda_where_there_is_none(command, bundle, monkeypatch):
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    ran = command("predict", "a", "-m", bundle("base"), "--provider", "cuda")
    check_error(ran, "Provider 'cuda' is not available: the installed onnxruntime was built for CPUExecutionProvider.")
    assert "pip install 'onnxlens[cuda]'" in ran.err


def test_a_folder_that_is_no_bundle(command, tmp_path):
    check_error(command("predict", "a", "-m", tmp_path), f"{tmp_path} is not a bundle: it has no onnxlens.json.")


@pytest.mark.parametrize("name", ["predict", "hooks", "inspect"])
def test_a_damaged_bundle(command, bundle, tmp_path, name):
    copy = tmp_path / "copy"
    shutil.copytree(bundle("base"), copy)
    (copy / "tokenizer.json").unlink()
    arguments = ["a"] if name == "predict" else []
    check_error(command(name, *arguments, "-m", copy), f"The bundle {copy} is incomplete: tokenizer.json is missing.")


def test_inspect_reads_every_byte(command, bundle, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(bundle("base"), copy)
    with (copy / "onnx/model.onnx_data").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x77")
    assert command("hooks", "-m", copy).code == 0
    check_error(command("inspect", "-m", copy), f"{copy / 'onnx/model.onnx_data'} is not the file that was exported")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["predikt", "a"], "No such command 'predikt'. Did you mean 'predict'?"),
        (["predict", "--tops", "3"], "No such option"),
        (["predict", "a", "--top", "many"], "Invalid value for '--top': 'many' is not a valid integer."),
        (["view", "attention", "a", "--layer", "x"], "Invalid value for '--layer': 'x' is not a whole number."),
        (["view", "atention", "a"], "There is no visualizer 'atention'. Did you mean 'attention'?"),
        (["view", "patching", "a"], "Missing option '--corrupted'."),
        (
            ["generate", "a", "--sampler", "top_k=3", "--top-p", "0.5"],
            "Give either --sampler, or --temp",
        ),
        (["predict", "a", "b"], "Got unexpected extra argument (b)"),
        (["trace", "a"], "Missing option '-o' / '--output'."),
        (["generate", "a", "--temperature", "hot"], "'hot' is not a valid float."),
    ],
)
def test_wrong_usage_is_exit_code_2(command, arguments, expected):
    ran = command(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert expected in ran.err
    assert "Traceback" not in ran.err


def test_an_unexpected_error_is_one_line_too_and_says_how_to_see_more(command, monkeypatch):
    def broken(*args, **options):
        raise ZeroDivisionError("first line\nsecond line")

    monkeypatch.setattr("onnxlens._catalog.find", broken)
    expected = "ZeroDivisionError: first line second line (unexpected; 'onnxlens --debug ...' shows where)\n"
    check_error(command("hooks"), expected)


def test_debug_shows_the_traceback(command, tmp_path):
    from onnxlens.runtime.errors import BundleError

    with pytest.raises(BundleError, match="is not a bundle"):
        command("--debug", "predict", "a", "-m", tmp_path)
