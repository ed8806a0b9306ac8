"""The cost of a run in cost.json."""

import json

import pytest
import torch
from pytorch_lightning import Trainer
from torch import nn

from scoredistill.critics import NetworkCritic
from scoredistill.generators import ImageParticles
from scoredistill.losses import SDS, VSD
from scoredistill.networks import Backbone, MLPBackbone
from scoredistill.teachers import GaussianMixture
from scoredistill.training import ConditionDataModule, Distillation, UpdatePlan
from scoredistill.training.callbacks.cost import Cost, outermost

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning", "ignore:.*does not have many workers")


def trained(tmp_path, loss, steps: int, cost: Cost | None = None, **settings) -> dict[str, float]:
    teacher = GaussianMixture(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]), 0.5)
    module = Distillation(ImageParticles(torch.randn(6, 2)), teacher, loss, **settings)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "accelerator": "cpu"}
    trainer = Trainer(
        max_steps=steps, default_root_dir=tmp_path, callbacks=[cost or Cost()], enable_checkpointing=False, **quiet
    )
    trainer.fit(module, datamodule=ConditionDataModule())
    assert not any(network._forward_pre_hooks for network in outermost(module))
    return json.loads((tmp_path / "cost.json").read_text())


def test_exact_teachers_and_critics_call_no_network(tmp_path):
    cost = trained(tmp_path, SDS(), 3)
    assert (cost["steps"], cost["network_calls"], cost["network_rows"]) == (3, 0, 0)
    assert cost["seconds"] > 0
    assert 50 < cost["memory_mb"] < 100_000


@pytest.mark.parametrize(("plan", "calls"), [({}, 2), ({"noise": "shared"}, 1), ({"critic_steps": 3}, 4)])
def test_every_call_of_a_network_is_counted(tmp_path, plan, calls):
    """A step calls the critic for the objective, and once for each critic step unless they share a call."""
    critic = NetworkCritic(MLPBackbone((2,), hidden=8, layers=1))
    cost = trained(tmp_path, VSD(critic), 4, plan=UpdatePlan(**plan))
    assert cost["network_calls"] == 4 * calls
    assert cost["network_rows"] == 4 * calls * 6


def test_parts_of_a_resumed_run_add_up(tmp_path):
    cost = Cost()
    cost.load_state_dict({"seconds": 100.0, "calls": 7, "rows": 70})
    found = trained(tmp_path, SDS(), 2, cost)
    assert found["network_calls"] == 7
    assert 100 < found["seconds"] < 150
    assert cost.state_dict() == {"seconds": found["seconds"], "calls": 7, "rows": 70}


class Wrapped(Backbone):
    """A network in a network."""

    def __init__(self, inner: Backbone) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x, log_snr, condition):
        return self.inner(x, log_snr, condition)


def test_a_network_in_a_network_is_not_counted_twice():
    inner, other = (MLPBackbone((2,), hidden=8, layers=1) for _ in range(2))
    whole = Wrapped(inner)
    assert list(outermost(nn.ModuleList([inner, whole, other]))) == [whole, other]
