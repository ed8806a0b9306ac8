"""Every objective runs 20 steps on every carrier, without a special case."""

from inspect import isabstract

import pytest
import torch
from carriers import CARRIERS, OBJECTIVES
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader
from training.test_module import run, trainer

import scoredistill.losses
from scoredistill import Batch
from scoredistill.losses import GradientNormalizer, Objective, Regression
from scoredistill.training import Distillation, NetworkOptimizer


class Repeated(LightningDataModule):
    """The same batch in every step."""

    def __init__(self, batch: Batch) -> None:
        super().__init__()
        self.batch = batch

    def train_dataloader(self) -> DataLoader[Batch]:
        return DataLoader([self.batch] * 20, batch_size=None)  # type: ignore[arg-type]

    val_dataloader = train_dataloader


@pytest.mark.slow
@pytest.mark.parametrize("carrier", CARRIERS)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_twenty_steps(objective: str, carrier: str) -> None:
    c = CARRIERS[carrier]()
    adam = NetworkOptimizer()
    module = Distillation(c.generator, c.teacher, OBJECTIVES[objective](c), c.guidance, generator_optimizer=adam)
    before = torch.cat([p.detach().flatten().clone() for p in module.distiller.generator.parameters()])
    fit = run(trainer(20), module, Repeated(c.batch))
    assert fit.global_step == 20
    after = torch.cat([p.detach().flatten() for p in module.distiller.generator.parameters()])
    assert bool(torch.isfinite(after).all())
    assert not torch.equal(before, after)
    trained = bool(module.distiller.critics or module.distiller.discriminators)
    assert module.critic_steps == (20 if trained else 0)


def test_every_objective_is_in_the_list() -> None:
    exported = {getattr(scoredistill.losses, name) for name in scoredistill.losses.__all__}
    kinds = {each for each in exported if isinstance(each, type) and issubclass(each, Objective)}
    kinds = {kind for kind in kinds if not isabstract(kind)} - {Regression}  # regression alone needs pairs
    named = {key.partition("-")[0] for key in OBJECTIVES}
    assert {kind.__name__ for kind in kinds} == named
    assert not issubclass(GradientNormalizer, Objective)
