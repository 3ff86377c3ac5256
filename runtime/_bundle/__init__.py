"""A bundle on disk: its files, and what it says of its model."""
