"""Attacks that learn something about images without rebuilding them."""
