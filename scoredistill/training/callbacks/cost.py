"""Cost of a run: time, memory, network calls."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn

from scoredistill.files import write_json_atomically
from scoredistill.networks.backbone import Backbone
from scoredistill.training.callbacks.evaluation import guarded, run_folder


class Cost(Callback):
    """Writes cost.json when training ends, with the cost of training, excluding evaluation and set-up.

    `seconds` is the training time; `network_calls` and `network_rows` are the numbers of calls of networks (teacher,
    critic, student, discriminator) and of samples in them, 0 if teacher and critic are exact; `steps` is the number of
    generator steps; `memory_mb` is the peak memory of the process (not on Windows), and `gpu_memory_mb` that of the
    GPU. The parts of a resumed run are added up.
    """

    def __init__(self) -> None:
        self._seconds = 0.0
        self._calls = 0
        self._rows = 0
        self._since: float | None = None
        self._hooks: list[Any] = []

    def state_dict(self) -> dict[str, Any]:
        """The sums so far."""
        return {"seconds": self._elapsed(), "calls": self._calls, "rows": self._rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from the sums of a checkpoint."""
        self._seconds = float(state_dict["seconds"])
        self._calls = int(state_dict["calls"])
        self._rows = int(state_dict["rows"])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock and the counters."""
        self._since = time.monotonic()
        self._hooks = [network.register_forward_pre_hook(self._count) for network in outermost(pl_module)]

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock and the counters, and write the file."""
        self._stop()
        if not trainer.is_global_zero:
            return
        cost = {
            "seconds": self._seconds,
            "steps": trainer.global_step,
            "network_calls": self._calls,
            "network_rows": self._rows,
        }
        if sys.platform != "win32":
            cost["memory_mb"] = _peak_memory()
        if pl_module.device.type == "cuda":
            cost["gpu_memory_mb"] = torch.cuda.max_memory_allocated(pl_module.device) / 2**20
        with guarded(trainer, self):
            write_json_atomically(run_folder(trainer) / "cost.json", cost)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Remove the counters from the networks."""
        self._stop()

    def _elapsed(self) -> float:
        return self._seconds + (0.0 if self._since is None else time.monotonic() - self._since)

    def _stop(self) -> None:
        self._seconds = self._elapsed()
        self._since = None
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def _count(self, network: nn.Module, arguments: tuple[Any, ...]) -> None:
        self._calls += 1
        self._rows += next((len(value) for value in arguments if isinstance(value, Tensor)), 0)


def outermost(module: nn.Module) -> Iterator[Backbone]:
    """The networks of a module that are not part of another network, each once."""
    networks = [child for child in module.modules() if isinstance(child, Backbone)]
    inner = {id(child) for network in networks for child in network.modules() if child is not network}
    return (network for network in networks if id(network) not in inner)


def _peak_memory() -> float:
    """Peak resident set size of the process in MB."""
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10  # bytes on macOS, kilobytes on Linux
