"""The parts of samplers: the base class, the remaining candidates, chains as text, and explanations."""
