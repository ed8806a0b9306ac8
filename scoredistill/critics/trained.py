"""Critics that are trained by denoising score matching on the generator's samples."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy

import torch
from torch import Tensor, nn

from scoredistill.cache import LastCallCache
from scoredistill.critics.critic import Critic, TrainedPart
from scoredistill.diffusion.prediction import Prediction
from scoredistill.networks.backbone import Backbone
from scoredistill.networks.denoiser import Denoiser, Parameterization
from scoredistill.networks.modules import eval_mode
from scoredistill.ranges import require
from scoredistill.teachers.teacher import Teacher
from scoredistill.types import Diffused


class TrainedCritic(Critic, TrainedPart):
    """A critic that is trained by denoising score matching. A subclass implements `predict` and `error`."""

    def __init__(self) -> None:
        super().__init__()
        self._kept: LastCallCache[Prediction] | None = None
        self._trained: list[nn.Parameter] = []  # while something is kept

    @abstractmethod
    def predict(self, diffused: Diffused) -> Prediction:
        """The prediction at x_t, from one call of the network."""

    @abstractmethod
    def error(self, predicted: Prediction, diffused: Diffused) -> Tensor:
        """Error of a prediction at each sample, (B,), in the units of the network's output."""

    @property
    def frozen(self) -> set[str]:
        """Names of parameters and buffers shared with another network, which are left out of checkpoints."""
        return set()

    def forward(self, diffused: Diffused) -> Prediction:
        if self._kept is None:
            return self.predict(diffused)
        about = [diffused.x_t, diffused.t, diffused.sample, *self._trained]
        with torch.enable_grad():  # a loss calls it under no_grad; the critic's error needs the graph
            predicted = self._kept.of(self.training, about, lambda: self.predict(diffused))
        return predicted if torch.is_grad_enabled() else predicted.detach()

    def training_error(self, diffused: Diffused, teacher: Teacher) -> Tensor:
        return self.error(self(diffused), diffused)


@contextmanager
def reuse_forward(*critics: nn.Module) -> Iterator[None]:
    """Inside the `with` block, a trained critic is called once for the loss and for its own training error.

    The prediction for the loss keeps its graph, and `training_error` at the same diffused samples reuses it. The
    critics are in evaluation mode, without dropout, until the block ends. The backward pass belongs inside the block,
    because gradient checkpointing repeats the forward pass. The prediction is dropped when samples, condition or
    weights change and at the end of the block.

        with reuse_forward(*distiller.critics):
            step = distiller.evaluate(batch)
            (step.loss + distiller.critic_error(step.diffused).mean()).backward()

    Args:
        critics: modules; those that are not a `TrainedCritic` are ignored.
    """
    trained = [critic for critic in critics if isinstance(critic, TrainedCritic)]
    with eval_mode(*trained):
        for critic in trained:
            critic._kept = LastCallCache()
            critic._trained = [parameter for parameter in critic.parameters() if parameter.requires_grad]
        try:
            yield
        finally:
            for critic in trained:
                critic._kept = None
                critic._trained = []


class NetworkCritic(TrainedCritic):
    """A network B_phi trained along with the generator:

        min_phi E ||y_phi(x_t, t, condition) - y||^2

    with y the target of its parameterization (see `Denoiser`). The minimizer is the score of q_t.

    "ProlificDreamer: High-Fidelity and Diverse Text-to-3D Generation with Variational Score Distillation" (2023),
    arXiv:2305.16213.

    Args:
        network: the backbone; None: a copy of the teacher's network with its parameterization.
        prediction: what the backbone outputs: edm, epsilon, x0, v, flow or score. edm is well-scaled at every
            noise level under any schedule, v where alpha^2 + sigma^2 = 1.
        sigma_data: the data's standard deviation, for edm only, > 0.
    """

    def __init__(
        self,
        network: Backbone | None = None,
        prediction: Parameterization = "v",
        sigma_data: float = 0.5,
    ) -> None:
        require("> 0", sigma_data=sigma_data)
        super().__init__()
        self.denoiser = None if network is None else Denoiser(network, prediction, sigma_data)

    def bind(self, teacher: Teacher) -> None:
        if self.denoiser is None:
            self.denoiser = deepcopy(teacher.denoiser_for("the critic")).requires_grad_(True).train(self.training)

    def predict(self, diffused: Diffused) -> Prediction:
        denoiser = self.denoiser_for("the loss")
        return denoiser(diffused.x_t, diffused.t, diffused.condition, diffused.schedule)

    def error(self, predicted: Prediction, diffused: Diffused) -> Tensor:
        return self.denoiser_for("training").error(predicted, diffused)

    def denoiser_for(self, user: str) -> Denoiser:
        if self.denoiser is None:
            raise ValueError("NetworkCritic has no network yet: pass network=, or put it into a Distiller")
        return self.denoiser
