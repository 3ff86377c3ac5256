"""What visualizers are made of: the base class, how the model runs for one, and what several of them share."""
