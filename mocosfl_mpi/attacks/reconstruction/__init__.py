"""Attacks that rebuild images from what clients sent."""
