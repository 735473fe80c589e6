"""Scenes: a victim does what it does in a run, an adversary looks on, and the truth is kept to score the guess."""

from mocosfl_mpi.attacks.scenes.reconstruction import Reconstruction, Scene, drawn, look, pixels_of

__all__ = ["Reconstruction", "Scene", "drawn", "look", "pixels_of"]
