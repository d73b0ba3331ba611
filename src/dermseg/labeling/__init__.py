"""From a model's proposals to better labels, and from labels to a better model."""
