"""The order of updates."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoredistill.training import UpdatePlan
from scoredistill.training.randomness import generator_at


def sequence(plan: UpdatePlan, ticks: int, has_critic: bool = True) -> str:
    turns = [plan.turn(tick, has_critic) for tick in range(ticks)]
    return " ".join("G" * turn.generator + "C" * turn.critic for turn in turns)


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        (UpdatePlan(), "GC GC GC GC GC GC"),
        (UpdatePlan(3), "C C GC C C GC"),
        (UpdatePlan(mode="alternating"), "C G C G C G"),
        (UpdatePlan(2, "alternating"), "C C G C C G"),
    ],
)
def test_sequences_of_both_modes(plan: UpdatePlan, expected: str) -> None:
    assert sequence(plan, 6) == expected
    assert sequence(plan, 6, has_critic=False) == "G G G G G G"


@given(k=st.integers(1, 10), periods=st.integers(1, 5))
def test_every_generator_step_has_its_critic_steps(k: int, periods: int) -> None:
    concurrent = sequence(UpdatePlan(k), k * periods)
    alternating = sequence(UpdatePlan(k, "alternating"), (k + 1) * periods)
    for turns in (concurrent, alternating):
        assert (turns.count("G"), turns.count("C")) == (periods, k * periods)
    assert UpdatePlan(k).period == k
    assert UpdatePlan(k, "alternating").period == k + 1


@pytest.mark.parametrize("wrong", [{"critic_steps": 0}, {"accumulate": 0}])
def test_impossible_plans_are_errors(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be at least 1"):
        UpdatePlan(**wrong)  # type: ignore[arg-type]


def test_random_numbers_are_a_function_of_seed_step_and_stream() -> None:
    keys = [(seed, step, stream) for seed in range(5) for step in range(20) for stream in range(3)]
    seeds = {generator_at(*key).initial_seed() for key in keys}
    assert len(seeds) == len(keys)
    assert generator_at(1, 2, 3).initial_seed() == generator_at(1, 2, 3).initial_seed()
    assert generator_at(2**62, 10**9, 7).initial_seed() >= 0
