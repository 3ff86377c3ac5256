"""What samplers are made of: the base class, the tokens that may still be chosen, chains as text, and explanations."""
