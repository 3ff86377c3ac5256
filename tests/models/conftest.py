from pathlib import Path

import pytest
from toy_corpus import write_toy_corpus


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small corpus, a quarter of it held out."""
    folder = tmp_path_factory.mktemp("work")
    write_toy_corpus(folder, story_count=200)
    return folder
