"""Models of the generator's own score."""
