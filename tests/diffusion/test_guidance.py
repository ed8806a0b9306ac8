"""Guidance: its one convention, and Perp-Neg for each sample."""

import pytest
import torch
from torch import Tensor

from scoredistill.diffusion import CFG, CosineSchedule, PerpNeg, Prediction
from scoredistill.diffusion.guidance import perpendicular
from scoredistill.teachers import Teacher
from scoredistill.types import Condition


class Words(Teacher):
    """A teacher whose epsilon is one fixed random tensor per prompt; it records the conditions."""

    def __init__(self, shape: tuple[int, ...] = (4, 2, 3)) -> None:
        super().__init__(CosineSchedule())
        self.answers: dict[str | None, Tensor] = {
            prompt: torch.randn(shape, generator=torch.Generator().manual_seed(seed))
            for seed, prompt in enumerate([None, "a mug", "red", "side view", "back view"])
        }
        self.asked: list[Condition | None] = []

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition | None = None) -> Prediction:
        self.asked.append(condition)
        prompt = None if condition is None else condition.prompt
        return Prediction(x_t, t, self.schedule, epsilon=self.answers[prompt])  # type: ignore[index]


X_T, T = torch.zeros(4, 2, 3, dtype=torch.float64), torch.full((4,), 0.5, dtype=torch.float64)


@pytest.mark.parametrize("scale", [0.0, 1.0, 7.5, 101.0])
def test_cfg_is_uncond_plus_s_times_the_difference(scale: float) -> None:
    teacher = Words()
    cond, uncond = teacher.answers["a mug"], teacher.answers[None]
    guided = CFG(scale)(teacher, X_T, T, Condition("a mug")).epsilon
    torch.testing.assert_close(guided, uncond + scale * (cond - uncond))
    assert len(teacher.asked) == (1 if scale == 1 else 2)


def test_cfg_moves_away_from_the_negative_prompt() -> None:
    teacher = Words()
    cond, negative = teacher.answers["a mug"], teacher.answers["red"]
    guided = CFG(3.0)(teacher, X_T, T, Condition("a mug", "red")).epsilon
    torch.testing.assert_close(guided, negative + 3 * (cond - negative))


def test_the_other_branch_keeps_camera_and_background_and_drops_the_label() -> None:
    condition = Condition("a mug", "red", label=torch.arange(4), background=torch.zeros(4, 3))
    teacher = Words()
    CFG(2.0)(teacher, X_T, T, condition)
    other = teacher.asked[1]
    assert other is not None
    assert (other.prompt, other.label) == ("red", None)
    assert other.background is condition.background


def test_cfg_without_a_condition_calls_the_teacher_once() -> None:
    teacher = Words()
    assert torch.equal(CFG(7.5)(teacher, X_T, T, None).epsilon, teacher.answers[None])
    assert teacher.asked == [None]


def dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).flatten(1).sum(1)


def test_perpendicular_part_is_orthogonal_in_every_sample() -> None:
    a, b = torch.randn(5, 2, 3), torch.randn(5, 2, 3)
    b[2] = 0
    across = perpendicular(a, b)
    torch.testing.assert_close(dot(across, b), torch.zeros(5), atol=1e-14, rtol=0)
    assert torch.equal(across[2], a[2])
    torch.testing.assert_close(perpendicular(a + 3 * b, b), across)
    torch.testing.assert_close(across[[3]], perpendicular(a[[3]], b[[3]]))


def test_perp_neg_leaves_the_prompts_own_direction_alone() -> None:
    teacher, scale = Words(), 7.5
    cond, uncond = teacher.answers["a mug"], teacher.answers[None]
    guided = PerpNeg(scale, {"side view": -0.5, "back view": -1.0})(teacher, X_T, T, Condition("a mug")).epsilon
    d_0, change = cond - uncond, guided - (uncond + scale * (cond - uncond))
    torch.testing.assert_close(dot(change, d_0), torch.zeros(4), atol=1e-12, rtol=0)
    expected = sum(
        weight * perpendicular(teacher.answers[prompt] - uncond, d_0)
        for prompt, weight in {"side view": -0.5, "back view": -1.0}.items()
    )
    torch.testing.assert_close(change, scale * expected)
    assert dot(change, change).min() > 1


def test_perp_neg_without_negatives_is_cfg() -> None:
    teacher, condition = Words(), Condition("a mug", "red")
    ours, plain = (guidance(teacher, X_T, T, condition).epsilon for guidance in (PerpNeg(4.0, {}), CFG(4.0)))
    torch.testing.assert_close(ours, plain)


def test_perp_neg_refuses_impossible_settings() -> None:
    with pytest.raises(ValueError, match=r"negatives\.back view must be at most 0, got 0\.5"):
        PerpNeg(7.5, {"side view": -1.0, "back view": 0.5})
    with pytest.raises(ValueError, match="needs a condition"):
        PerpNeg(7.5, {"red": -1.0})(Words(), X_T, T, None)
