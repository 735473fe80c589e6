"""How good an encoder is: frozen features, weighted kNN, linear probe, and the health of what it learns from."""
