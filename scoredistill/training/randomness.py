"""Random numbers as a function of seed and step, without state."""

from __future__ import annotations

import torch


def generator_at(seed: int, step: int, stream: int = 0) -> torch.Generator:
    """A CPU generator determined by three integers.

    Args:
        seed: of the run, >= 0.
        step: number of the step, >= 0.
        stream: distinguishes independent uses within a step, for example the rank of a process, >= 0.
    """
    # SplitMix64's finalizer scatters neighboring integers, whose raw use as seeds would correlate the streams.
    mask = 2**64 - 1
    state = (seed * 0x9E3779B97F4A7C15 + step * 0xBF58476D1CE4E5B9 + stream * 0x94D049BB133111EB) & mask
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & mask
    return torch.Generator().manual_seed((state ^ (state >> 31)) >> 1)
