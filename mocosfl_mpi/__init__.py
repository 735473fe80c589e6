"""Split-federated self-supervised learning over MPI: MocoSFL, MonAcoSFL and their relatives."""

__version__ = "0.1.0"
