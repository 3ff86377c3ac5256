"""Charts: renderings for numbers, in every format, for whoever writes a visualizer.

A chart is given plain texts and numbers, and escapes what it shows for each format itself.
"""
