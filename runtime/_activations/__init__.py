"""What was read, and what is computed from it."""
