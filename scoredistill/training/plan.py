"""Who is updated when."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from scoredistill.ranges import require


@dataclass(frozen=True)
class Turn:
    """Which networks a tick updates."""

    generator: bool
    critic: bool


@dataclass(frozen=True)
class UpdatePlan:
    """The order of generator and critic updates. A tick is one batch; training lasts for so many generator steps.

    concurrent: the critic is updated at every tick, the generator at every `critic_steps`-th, on the same samples.
    alternating: `critic_steps` ticks for the critic alone, then one for the generator alone.

    Args:
        critic_steps: critic steps per generator step, >= 1.
        mode: concurrent or alternating.
        accumulate: micro-batches that a batch is split into when the generator is differentiated, >= 1. The objective
            is evaluated on the whole batch, so that the result does not depend on it; memory does.
        noise: what a critic is trained on in a tick that updates the generator too. fresh: noise and times of its own.
            shared: those of the generator's step, so that one call of the critic's network serves both, without its
            dropout; in the other ticks of concurrent critic steps they are fresh.

    Raises:
        ValueError: if a number is below 1, or noise is to be shared in a plan in which the critic has ticks of its own
            or the objective is evaluated in micro-batches.
    """

    critic_steps: int = 1
    mode: Literal["concurrent", "alternating"] = "concurrent"
    accumulate: int = 1
    noise: Literal["fresh", "shared"] = "fresh"

    def __post_init__(self) -> None:
        require(">= 1", critic_steps=self.critic_steps, accumulate=self.accumulate)
        if self.noise == "shared" and (self.mode == "alternating" or self.accumulate > 1):
            raise ValueError(f"plan.noise: shared needs plan.mode: concurrent and plan.accumulate: 1, got {self}")

    @property
    def period(self) -> int:
        """Ticks in which every network has its turn."""
        return self.critic_steps + (self.mode == "alternating")

    def turn(self, tick: int, has_critic: bool) -> Turn:
        """Who is updated at a tick, counted from 0. Without a trained critic every tick is the generator's."""
        if not has_critic:
            return Turn(generator=True, critic=False)
        if self.mode == "concurrent":
            return Turn(generator=tick % self.critic_steps == self.critic_steps - 1, critic=True)
        generator = tick % (self.critic_steps + 1) == self.critic_steps
        return Turn(generator=generator, critic=not generator)

    def shares(self, turn: Turn) -> bool:
        """Whether the critic learns from the generator step's own noise, by the same call of its network."""
        return self.noise == "shared" and turn.generator and turn.critic
