"""Studies: runs of a recipe under all combinations of settings and seeds, with statistics and a report."""
