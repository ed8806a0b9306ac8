"""Optimizers of a network."""

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


def test_other_parameters_keep_the_optimizers_own_rate() -> None:
    model = network()
    optimizer = NetworkOptimizer(partial(torch.optim.SGD, lr=0.3, momentum=0.9), {"head": 0.1}).build(model)
    assert rates_by_parameter(optimizer, model)["encoding.weight"] == 0.3
    assert {group["momentum"] for group in optimizer.param_groups} == {0.9}


def test_an_unknown_prefix_lists_the_known_names() -> None:
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
def test_clipping_returns_the_norm_before_clipping(clip: float | None, left: float) -> None:
    model = nn.Linear(2, 1, bias=False)
    settings = NetworkOptimizer(clip=clip)
    optimizer = settings.build(model)
    model.weight.grad = torch.tensor([[3.0, 4.0]])
    assert float(settings.clip_gradient(optimizer)) == pytest.approx(5)
    assert float(model.weight.grad.norm()) == pytest.approx(left, rel=1e-5)


def trained(settings: NetworkOptimizer, model: nn.Module, state: dict | None = None) -> torch.optim.Optimizer:
    """An optimizer after one step, starting from a checkpoint's state if given."""
    optimizer = settings.build(model)
    if state is not None:
        optimizer.load_state_dict(state)
    settings.prepare(optimizer, 3, 0.5)
    sum(p.square().sum() for p in model.parameters()).backward()
    optimizer.step()
    return optimizer


def test_settings_come_from_the_recipe_and_state_from_the_checkpoint() -> None:
    model = network()
    saved = trained(NetworkOptimizer(rates={"head": 0.01}), model).state_dict()
    adam = partial(torch.optim.Adam, lr=0.2, betas=(0.5, 0.6), weight_decay=0.1)
    settings = NetworkOptimizer(adam, {"head": 0.03}, factor=0.5)
    optimizer = settings.build(model)
    optimizer.load_state_dict(saved)
    settings.prepare(optimizer, 9, 0.5)
    rates = rates_by_parameter(optimizer, model)
    assert (rates["encoding.weight"], rates["head.rgb.bias"]) == (0.1, 0.015)
    assert {(group["betas"], group["weight_decay"]) for group in optimizer.param_groups} == {((0.5, 0.6), 0.1)}
    for index, moments in optimizer.state_dict()["state"].items():
        assert torch.equal(moments["exp_avg"], saved["state"][index]["exp_avg"])
        assert float(moments["step"]) == 1


def test_a_checkpoint_with_the_same_settings_is_restored() -> None:
    settings, model = NetworkOptimizer(rates={"head": 0.01}), network()
    saved = trained(settings, model).state_dict()
    optimizer = settings.build(model)
    optimizer.load_state_dict(saved)
    settings.prepare(optimizer, 3, 0.5)
    assert optimizer.state_dict()["param_groups"] == saved["param_groups"]


def test_a_checkpoint_with_other_prefixes_is_refused() -> None:
    model = network()
    saved = NetworkOptimizer(rates={"head": 0.01}).build(model).state_dict()
    with pytest.raises(ValueError, match="may change rates but not their prefixes"):
        NetworkOptimizer(rates={"encoding": 0.01}).build(model).load_state_dict(saved)
