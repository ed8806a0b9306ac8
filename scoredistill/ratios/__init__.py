"""Density ratios r = p_t / q_t."""
