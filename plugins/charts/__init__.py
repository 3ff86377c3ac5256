"""Charts: renderings for numbers, in every format, for authors of visualizers.

A chart is given plain texts and numbers, and escapes what it shows for each format itself. Charts load drawing
libraries only when a picture is drawn.
"""

from onnxlens.plugins.charts.bars import Bars
from onnxlens.plugins.charts.base import Chart
from onnxlens.plugins.charts.coloured import ColouredText
from onnxlens.plugins.charts.heatmap import Heatmap
from onnxlens.plugins.charts.lines import Lines
from onnxlens.plugins.charts.links import Links
from onnxlens.plugins.charts.stack import Stack
from onnxlens.plugins.charts.table import Table

__all__ = ["Bars", "Chart", "ColouredText", "Heatmap", "Lines", "Links", "Stack", "Table"]
