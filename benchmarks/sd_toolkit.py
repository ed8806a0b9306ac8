"""The package's step with Lightning, which takes turns with other steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import cycle
from tempfile import TemporaryDirectory
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import CSVLogger
from sd_steps import GUIDANCE
from step_meter import Clock, Measured, Meter

from scoredistill.cli.lightning_patches import quiet
from scoredistill.critics import LoRACritic
from scoredistill.diffusion import CFG
from scoredistill.generators.nerf import NeRF
from scoredistill.losses import SDS, VSD
from scoredistill.networks import LoRA
from scoredistill.teachers import DiffusersTeacher
from scoredistill.training import Distillation, NetworkOptimizer, PromptAndCameras, UpdatePlan
from scoredistill.training.callbacks import RunProgress

OWN = "scoredistill"


def distillation(nerf: NeRF, teacher: DiffusersTeacher, vsd: bool) -> Distillation:
    """SDS, or VSD with one call of the critic for the particles' gradient and its own."""
    return Distillation(
        nerf, teacher, VSD(LoRACritic(LoRA(rank=4), camera=True)) if vsd else SDS(), CFG(GUIDANCE),
        generator_optimizer=NetworkOptimizer(lambda groups: torch.optim.Adam(groups, lr=1e-3)),
        critic_optimizer=NetworkOptimizer(lambda groups: torch.optim.AdamW(groups, lr=1e-4)),
        plan=UpdatePlan(noise="shared"),
    )  # fmt: skip


class Turns(Callback):
    """Measures each of the trainer's steps, including the time between two steps, and the other steps after each.

    Args:
        meter: measures the steps.
        others: steps by name.
    """

    def __init__(self, meter: Meter, others: Mapping[str, Callable[[Meter], None]]) -> None:
        self.meter, self.others = meter, others
        self.found: dict[str, list[Measured]] = {name: [] for name in (OWN, *others)}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Install the stages and start measuring."""
        assert isinstance(pl_module, Distillation)
        distiller, meter = pl_module.distiller, self.meter
        _watch(distiller.generator, "on_progress", meter, cycle(["render"]))
        _watch(distiller.generator, "forward", meter, cycle(["render"]))
        _watch(distiller.teacher, "encode", meter, cycle(["encode"]))
        _watch(distiller.teacher, "predict_many", meter, cycle(["teacher"]))
        for critic in distiller.critics:
            _watch(critic, "predict", meter, cycle(["critic"]))
        backward = ["backward", "critic backward"] if distiller.critics else ["backward"]
        _watch(pl_module, "manual_backward", meter, cycle(backward))
        _watch(trainer.strategy, "optimizer_step", meter, cycle(["optimizer"]))
        meter.start()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *arguments: object) -> None:
        """Run the other steps after the trainer's."""
        self.found[OWN].append(self.meter.stop())
        # The first step finds the caches and memory of the trainer's step, so the order rotates.
        begin = len(self.found[OWN]) % len(self.others)
        names = list(self.others)
        for name in names[begin:] + names[:begin]:
            step = self.others[name]
            self.meter.start()
            step(self.meter)
            self.found[name].append(self.meter.stop())
        self.meter.start()


def by_turns(
    module: Distillation,
    data: PromptAndCameras,
    others: Mapping[str, Callable[[Meter], None]],
    steps: int,
    clock: Clock = "wall",
) -> dict[str, list[Measured]]:
    """Train with one log line per step, and run the other steps in between.

    Args:
        module: on the device of the training.
        data: the cameras.
        others: steps by name.
        steps: number of steps of each, at least 2; the first is a warm-up and excluded from the results.
        clock: of a CPU.
    """
    turns = Turns(Meter(module.device, clock), others)
    with TemporaryDirectory() as folder, quiet():
        trainer = Trainer(
            accelerator="gpu" if module.device.type == "cuda" else "cpu", devices=1, max_steps=steps, max_epochs=-1,
            logger=CSVLogger(folder), log_every_n_steps=1, callbacks=[RunProgress(), turns],
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(module, datamodule=data)
    return {name: found[1:] for name, found in turns.found.items()}


def _watch(owner: object, method: str, meter: Meter, stages: Iterator[str]) -> None:
    """Attribute the calls of an object's method to the stages in turn."""
    plain = getattr(owner, method)

    def measured(*arguments: Any, **settings: Any) -> Any:
        with meter(next(stages)):
            return plain(*arguments, **settings)

    setattr(owner, method, measured)
