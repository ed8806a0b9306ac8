"""The order of generator and critic updates."""

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
    """The order of generator and critic updates. A tick is one batch; the length of training is in generator steps.

    concurrent: the critic is updated at every tick, the generator at every `critic_steps`-th tick, on the same samples.
    alternating: `critic_steps` ticks update only the critic, then one tick updates only the generator.

    Args:
        critic_steps: critic steps per generator step, >= 1.
        mode: concurrent or alternating.
        accumulate: number of micro-batches into which a batch is split when the generator is differentiated, >= 1. The
            objective is evaluated on the full batch, so this changes memory and not the result.
        noise: noise and times of a critic update in a tick that also updates the generator. fresh: new ones. shared:
            those of the generator's step, so that one call of the critic's network serves both, without its dropout;
            in ticks without a generator update they are fresh.

    Raises:
        ValueError: if a number is below 1, or shared noise is combined with alternating updates or micro-batches.
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
        """Number of ticks in which every network is updated."""
        return self.critic_steps + (self.mode == "alternating")

    def turn(self, tick: int, has_critic: bool) -> Turn:
        """Which networks a tick updates, counted from 0. Without a trained critic every tick updates the generator."""
        if not has_critic:
            return Turn(generator=True, critic=False)
        if self.mode == "concurrent":
            return Turn(generator=tick % self.critic_steps == self.critic_steps - 1, critic=True)
        generator = tick % (self.critic_steps + 1) == self.critic_steps
        return Turn(generator=generator, critic=not generator)

    def shares(self, turn: Turn) -> bool:
        """Whether the critic update shares the noise and the network call of the generator step."""
        return self.noise == "shared" and turn.generator and turn.critic
