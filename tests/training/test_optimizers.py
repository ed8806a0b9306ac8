"""How a network is optimised."""

from functools import partial

import pytest
import torch
from torch import nn

from scoredistill.annealing import Knot, Piecewise
from scoredistill.training import NetworkOptimizer


def network() -> nn.Module:
    return nn.ModuleDict(
        {"encoding": nn.Linear(2, 2), "head": nn.ModuleDict({"rgb": nn.Linear(2, 3), "density": nn.Linear(2, 1)})}
    )


def rates_by_parameter(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, float]:
    of = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    return {name: of[id(p)] for name, p in model.named_parameters() if id(p) in of}


def test_rates_by_the_longest_prefix() -> None:
    model = network()
    model["encoding"].bias.requires_grad_(False)
    rates = {"head": 0.01, "head.rgb": 0.02, "encoding.weight": 0.5}
    found = rates_by_parameter(NetworkOptimizer(rates=rates).build(model), model)
    assert found == {
        "encoding.weight": 0.5,
        "head.rgb.weight": 0.02,
        "head.rgb.bias": 0.02,
        "head.density.weight": 0.01,
        "head.density.bias": 0.01,
    }


def test_other_parameters_keep_the_optimisers_own_rate() -> None:
    model = network()
    optimizer = NetworkOptimizer(partial(torch.optim.SGD, lr=0.3, momentum=0.9), {"head": 0.1}).build(model)
    assert rates_by_parameter(optimizer, model)["encoding.weight"] == 0.3
    assert {group["momentum"] for group in optimizer.param_groups} == {0.9}


def test_an_unknown_prefix_names_what_there_is() -> None:
    with pytest.raises(ValueError, match="no parameter begins with 'hed'; there are encoding, head"):
        NetworkOptimizer(rates={"head": 0.1, "hed": 0.1}).build(network())


def test_warm_up_and_factor_scale_every_rate() -> None:
    settings = NetworkOptimizer(rates={"head": 0.2}, factor=Piecewise([Knot(0, 1.0), Knot(1, 0.5)]), warmup=4)
    model = network()
    optimizer = settings.build(model)
    for step, progress, scale in [(0, 0.0, 0.25), (1, 0.0, 0.5), (3, 0.0, 1.0), (50, 0.5, 0.75), (9, 1.0, 0.5)]:
        settings.prepare(optimizer, step, progress)
        rates = rates_by_parameter(optimizer, model)
        assert rates["head.rgb.weight"] == pytest.approx(0.2 * scale)
        assert rates["encoding.weight"] == pytest.approx(1e-3 * scale)


@pytest.mark.parametrize(("clip", "left"), [(None, 5.0), (10.0, 5.0), (0.5, 0.5)])
def test_clipping_returns_the_norm_there_was(clip: float | None, left: float) -> None:
    model = nn.Linear(2, 1, bias=False)
    settings = NetworkOptimizer(clip=clip)
    optimizer = settings.build(model)
    model.weight.grad = torch.tensor([[3.0, 4.0]])
    assert float(settings.clip_gradient(optimizer)) == pytest.approx(5)
    assert float(model.weight.grad.norm()) == pytest.approx(left, rel=1e-5)
