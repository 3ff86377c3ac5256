"""Sessions, passes, and generation."""
