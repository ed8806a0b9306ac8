"""Noise schedules, predictions, timesteps and guidance."""
