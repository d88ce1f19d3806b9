"""How workers get started elsewhere."""
