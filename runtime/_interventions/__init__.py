"""What is changed inside a pass."""
