"""Typed keyword arguments name what they stand for."""

from __future__ import annotations

import dataclasses
import inspect
from typing import get_type_hints

from onnxlens._lens import GenerateKeywords, Lens
from onnxlens.runtime._running.plan import PassKeywords, PassOptions


def test_keywords_of_a_pass_are_the_fields_of_its_options():
    assert sorted(PassKeywords.__annotations__) == sorted(field.name for field in dataclasses.fields(PassOptions))
    assert get_type_hints(PassKeywords) == get_type_hints(PassOptions)


def test_keywords_of_generate_are_its_parameters():
    parameters = inspect.signature(Lens.generate).parameters
    options = {name: one for name, one in parameters.items() if one.kind is inspect.Parameter.KEYWORD_ONLY}
    assert list(GenerateKeywords.__annotations__) == list(options)
    hints = get_type_hints(Lens.generate)
    assert {name: hints[name] for name in options} == get_type_hints(GenerateKeywords)
