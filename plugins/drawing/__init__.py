"""What pictures and pages are made of: renderings, labels, fonts, frames, and what a notebook keeps."""
