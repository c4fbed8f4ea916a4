"""How well a model knows a text."""
