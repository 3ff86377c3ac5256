"""Sources of plugins, to be changed into what a test needs."""

from __future__ import annotations

HEAD = "from onnxlens.plugins import hookimpl\nONNXLENS_PLUGIN_API = 1\n"

SAMPLER = (
    HEAD
    + '''
from dataclasses import dataclass
from onnxlens.plugins import Sampler

@dataclass
class Same(Sampler):
    """Leaves everything as it is."""

    def __call__(self, logits, context):
        return logits

@hookimpl
def register_samplers(register):
    register("NAME", Same)
'''
)

VISUALIZER = (
    HEAD
    + '''
from dataclasses import dataclass
from typing import Annotated
from onnxlens.plugins import Option, Rendering, Visualizer

class Counted(Rendering):
    def __init__(self, view):
        self.view = view

    def text(self):
        return f"{len(self.view.ids)} tokens"

    def data(self):
        return len(self.view.ids)

@dataclass
class Count(Visualizer):
    """Counts tokens."""

    factor: Annotated[int, Option("what to multiply with", ge=1)] = 1

    def hook_points(self, config):
        return []

    def draw(self, view):
        DRAW

@hookimpl
def register_visualizers(register):
    register("NAME", Count)
'''
)


def sampler(name: str) -> str:
    """The source of a plugin with a sampler."""
    return SAMPLER.replace("NAME", name)


def visualizer(name: str, draw: str = "return Counted(view)") -> str:
    """The source of a plugin with a visualizer that draws in some way."""
    return VISUALIZER.replace("NAME", name).replace("DRAW", draw.replace("\n", "\n        "))
