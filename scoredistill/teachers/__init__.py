"""Frozen models of the score to be distilled."""
