"""The script that measures the model, as a module."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[1]


def load() -> ModuleType:
    """Loads `benchmarks/model.py` anew."""
    sys.path.insert(0, str(ROOT / "benchmarks"))  # as Python does that runs it
    spec = importlib.util.spec_from_file_location("benchmarks_model", ROOT / "benchmarks" / "model.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
