"""What smashed data give away of images, and what clients do against it."""
