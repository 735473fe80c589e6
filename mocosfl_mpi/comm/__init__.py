"""The only package that knows what a rank is."""
