"""The simulated clients: their images, their weights in blocks, and who takes part."""
