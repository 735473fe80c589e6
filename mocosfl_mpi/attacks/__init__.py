"""Attacks on what a run has left: each sees only what its adversary saw, and is scored by the scene it is set in."""
