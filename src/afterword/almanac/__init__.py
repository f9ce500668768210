"""The embedded test bed: a small fictional world, and a small model that knows it up to a cutoff."""
