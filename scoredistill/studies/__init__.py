"""Studies: runs of a recipe under all combinations of settings and seeds, and what they say."""
