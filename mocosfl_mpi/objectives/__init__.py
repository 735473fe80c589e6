"""What is learnt: contrastive losses and the shared memory of features."""
