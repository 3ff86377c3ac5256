"""The pictures of the model card."""

from pathlib import Path

import numpy as np
from click.testing import CliRunner

from recipe.pictures import attention, main


def test_a_picture_shows_the_pattern_and_its_tokens(tmp_path: Path) -> None:
    pattern = np.tril(np.full((3, 3), 0.25, np.float32))
    drawn = {}
    for name, tokens in (("one", ["a", " b", " a"]), ("again", ["a", " b", " a"]), ("other", ["a", " b", " c"])):
        attention(pattern, tokens, "Layer 0, head 1", tmp_path / f"{name}.png")
        drawn[name] = (tmp_path / f"{name}.png").read_bytes()
    attention(pattern * 2, ["a", " b", " a"], "Layer 0, head 1", tmp_path / "stronger.png")
    assert drawn["one"] == drawn["again"]
    assert drawn["one"] != drawn["other"]
    assert drawn["one"] != (tmp_path / "stronger.png").read_bytes()


def test_without_a_training_there_is_no_curve(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["--work", str(tmp_path), "--out", str(tmp_path)])
    assert result.exit_code == 1
    assert result.output == (
        f"Error: No training: {tmp_path / 'training.pt'} does not exist. Run `python -m recipe.train` first.\n"
    )
    assert not list(tmp_path.iterdir())
