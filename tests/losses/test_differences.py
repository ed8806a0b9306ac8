"""The teacher's classifier; its laws are in tests/laws."""

import pytest
import torch

from scoredistill import Condition, Distiller
from scoredistill.generators import ImageParticles
from scoredistill.losses import CSD
from scoredistill.rendering.camera import Camera
from scoredistill.testing import ReferenceTeacher


def gradient(condition: Condition | None) -> torch.Tensor:
    x = torch.tensor([[0.3, -0.4], [1.0, 0.2]])
    distiller = Distiller(ImageParticles(x), ReferenceTeacher(), CSD())
    return distiller.gradient(x, t=torch.full((2,), 0.4), epsilon=torch.zeros(2, 2), condition=condition)


def test_a_negative_prompt_takes_the_unconditional_models_place() -> None:
    assert torch.equal(gradient(Condition("left", negative_prompt="left")), torch.zeros(2, 2))
    there, back = gradient(Condition("left", "up")), gradient(Condition("up", "left"))
    assert there.abs().min() > 1e-3
    assert torch.equal(there, -back)
    torch.testing.assert_close(there, gradient(Condition("left")) - gradient(Condition("up")))


CAMERA = Camera.orbit(*(torch.full((2,), value) for value in (30.0, 15.0, 2.5, 40.0)))


@pytest.mark.parametrize("condition", [None, Condition(camera=CAMERA)], ids=["nothing", "a camera"])
def test_without_prompt_and_class_there_is_nothing_to_descend(condition: Condition | None) -> None:
    with pytest.raises(ValueError, match=r"CSD compares a prompt or class .*: set data\.init_args\.prompt"):
        gradient(condition)
