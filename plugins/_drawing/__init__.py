"""The parts of pictures and pages: renderings, labels, fonts, pages, and output for notebooks."""
