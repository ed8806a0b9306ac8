"""Moving averages: what each rule weighs, several at once, and which one is evaluated."""

from pathlib import Path

import pytest
import torch
from pytorch_lightning import Callback
from torch import Tensor, nn
from training.test_module import fit

from scoredistill.generators import ImageParticles
from scoredistill.losses import SDS
from scoredistill.teachers import GaussianMixture
from scoredistill.training import (
    Averaging,
    Decay,
    Distillation,
    HalfLife,
    MovingAverage,
    PowerFunction,
)

STEPS = 40


def averaged(rule: Averaging | float, samples: int = 1) -> Tensor:
    """The weight of each step in the average after the last one."""
    network = nn.Linear(1, STEPS, bias=False)
    average = MovingAverage(network, rule)
    for step in range(STEPS):
        network.weight.data = torch.eye(STEPS)[step, :, None].clone()
        average.update(network, samples)
    return average.module.weight.detach()[:, 0]  # type: ignore[operator, union-attr]


def test_a_decay_alone_is_the_exponential_average_that_it_was() -> None:
    n = torch.arange(STEPS)
    expected = torch.where(n == 0, 0.9 ** (STEPS - 1), 0.1 * 0.9 ** (STEPS - 1 - n))
    torch.testing.assert_close(averaged(0.9), expected)
    assert torch.equal(averaged(0.9), averaged(Decay(0.9)))


@pytest.mark.parametrize("rule", [Decay(0.9), HalfLife(5), PowerFunction(0.1)])
def test_weights_sum_to_one(rule: Averaging) -> None:
    torch.testing.assert_close(averaged(rule).sum(), torch.tensor(1.0))


def test_a_half_life_counts_steps_or_samples() -> None:
    weights = averaged(HalfLife(5))
    torch.testing.assert_close(weights[-6] / weights[-1], torch.tensor(0.5))
    assert torch.equal(averaged(HalfLife(5)), averaged(HalfLife(80, "samples"), samples=16))


@pytest.mark.parametrize("std", [0.05, 0.1, 0.25])
def test_a_power_function_weighs_by_a_power_and_has_its_width(std: float) -> None:
    rule = PowerFunction(std)
    g = rule.gamma
    assert (g + 1) / ((g + 2) ** 2 * (g + 3)) == pytest.approx(std**2, rel=1e-9)
    n = torch.arange(1, STEPS + 1)
    # The n-th step is kept by all later ones: (1 - (1 - 1/n)^(g+1)) prod_{m > n} (1 - 1/m)^(g+1) telescopes.
    expected = (n / STEPS) ** (g + 1) - ((n - 1) / STEPS) ** (g + 1)
    torch.testing.assert_close(averaged(rule), expected)


def test_published_widths_have_published_powers() -> None:
    # Published with two decimals.
    assert PowerFunction(0.05).gamma == pytest.approx(16.97, abs=0.005)
    assert PowerFunction(0.1).gamma == pytest.approx(6.94, abs=0.005)


def test_an_average_starts_at_its_step() -> None:
    late = averaged(Decay(0.9, start=30))
    assert torch.equal(late[:30], torch.zeros(30))
    torch.testing.assert_close(late[30:], averaged_of(10))


def averaged_of(n: int) -> Tensor:
    return torch.where(torch.arange(n) == 0, 0.9 ** (n - 1), 0.1 * 0.9 ** (n - 1 - torch.arange(n)))


@pytest.mark.parametrize(
    "make",
    [lambda: Decay(1.0), lambda: HalfLife(0), lambda: PowerFunction(0.3), lambda: Decay(0.9, -1)],
)
def test_settings_out_of_range_are_refused(make) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=r"must (lie|be)"):
        make()


RULES = {"slow": PowerFunction(0.25), "fast": Decay(0.5)}


def module(evaluated: str | None = None, ema=RULES) -> Distillation:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    teacher = GaussianMixture(torch.zeros(1, 2), 1.0)
    return Distillation(ImageParticles(torch.randn(4, 2)), teacher, SDS(), ema=ema, evaluated=evaluated)


def test_the_evaluated_average_is_chosen_by_name() -> None:
    first, fast = module(), module("fast")
    for each in (first, fast):
        fit(each, 5)
    assert first.eval_generator is first.averages["slow"].module
    assert fast.eval_generator is fast.averages["fast"].module
    assert torch.equal(first.averages["fast"].module.values, fast.eval_generator.values)  # type: ignore[union-attr, arg-type]
    assert not torch.equal(first.eval_generator.values, fast.eval_generator.values)  # type: ignore[arg-type]
    alone = module(ema=0.5)
    fit(alone, 5)
    assert torch.equal(alone.eval_generator.values, fast.eval_generator.values)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="there is no average 'quick', only slow, fast"):
        module("quick")
    with pytest.raises(ValueError, match="is not a name"):
        module(ema={"a.b": Decay()})


def test_a_resumed_run_continues_every_average_and_may_evaluate_another(tmp_path: Path) -> None:
    class Save(Callback):
        def on_train_batch_end(self, trainer, *_) -> None:  # type: ignore[no-untyped-def]
            if trainer.global_step == 3:
                trainer.save_checkpoint(tmp_path / "half.ckpt")

    whole = module()
    fit(whole, 6, Save())
    resumed = module("fast")
    fit(resumed, 6, resume=tmp_path / "half.ckpt")
    for name in RULES:
        assert torch.equal(whole.averages[name].module.values, resumed.averages[name].module.values)  # type: ignore[union-attr, arg-type]
        assert resumed.averages[name].updates == 6
    assert resumed.eval_generator is resumed.averages["fast"].module
