"""From a model to text: one file a strategy."""
