"""Parameters that would never be trained, and shapes that would be broadcast, are refused by name."""

from collections.abc import Callable

import pytest
import torch
from laws.zoo import discriminator, mlp_critic
from torch import Tensor, nn

from scoredistill import Distiller
from scoredistill.critics import Critic, DiracCritic, ExactCritic, LoRACritic, ParticleCritic
from scoredistill.diffusion import CFG, Guidance, Prediction, Schedule, SigmaSquaredWeight, TimeWeight
from scoredistill.divergences import JensenShannon
from scoredistill.generators import Generator, ImageParticles
from scoredistill.losses import SDS, VSD, FDistill, Reweighting, ScoreDistillation, WithGAN
from scoredistill.losses.distillation import GradientNormalizer
from scoredistill.networks import LoRA, MLPBackbone
from scoredistill.ratios import DensityRatio, ExactRatio, RatioNormalizer
from scoredistill.teachers import GaussianMixture, NetworkTeacher, Teacher
from scoredistill.types import Batch, Diffused, Sample


def distiller(loss: ScoreDistillation, generator: Generator | None = None, guidance: CFG | None = None) -> Distiller:
    teacher = GaussianMixture(torch.zeros(1, 2), 1.0)
    return Distiller(generator or ImageParticles(torch.randn(4, 2)), teacher, loss, guidance)


def with_attribute(value: object) -> SDS:
    loss = SDS()
    loss.extra = value  # type: ignore[assignment]
    return loss


class Learned(Critic):
    """A user's critic with a network, which is not declared as trained."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Linear(2, 2)

    def forward(self, diffused: Diffused) -> Prediction:
        return Prediction(diffused.x_t, diffused.t, diffused.schedule, epsilon=self.network(diffused.x_t))


class LearnedRatio(DensityRatio):
    """A user's ratio with a network."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Linear(2, 1)

    def forward(self, diffused: Diffused, teacher: Teacher, critic: Critic | None) -> Tensor:
        return self.network(diffused.x_t)[:, 0]


ORPHANS: dict[str, tuple[Callable[[], ScoreDistillation], str]] = {
    "module": (lambda: with_attribute(nn.Linear(2, 2)), "SDS: extra.weight"),
    "parameter": (lambda: with_attribute(nn.Parameter(torch.zeros(()))), "SDS: extra"),
    "critic": (lambda: VSD(Learned()), "VSD: critic.network.weight"),
    "ratio": (lambda: FDistill(JensenShannon(), DiracCritic(), LearnedRatio()), "FDistill: ratio.network.weight"),
    "nested": (lambda: WithGAN(with_attribute(nn.Linear(2, 2)), discriminator()), "WithGAN: loss.extra.weight"),
}


@pytest.mark.parametrize(("make", "named"), ORPHANS.values(), ids=ORPHANS)
def test_parameters_without_an_optimizer_are_refused(make: Callable[[], ScoreDistillation], named: str) -> None:
    with pytest.raises(ValueError, match=rf"{named} would never be trained.*TrainedPart.*requires_grad_\(False\)"):
        distiller(make())


def test_frozen_parameters_are_allowed() -> None:
    made = distiller(with_attribute(nn.Linear(2, 2).requires_grad_(False)))
    assert made.critics == made.discriminators == []


def test_a_teacher_inside_a_loss_is_frozen_as_every_teacher() -> None:
    p, q = (NetworkTeacher(MLPBackbone((2,), 8)) for _ in range(2))
    made = distiller(FDistill(JensenShannon(), ExactCritic(q), ExactRatio(p)))
    assert not any(parameter.requires_grad for parameter in made.loss.parameters())
    assert not any(module.training for part in (p, made.loss.critic.distribution) for module in part.modules())


class WithNetwork(SigmaSquaredWeight):
    """A user's time weight with a network, which is not a module."""

    def __init__(self) -> None:
        self.network = nn.Linear(1, 1)


class Guided(CFG):
    """A user's guidance with a network."""

    def __init__(self) -> None:
        super().__init__()
        self.networks = {"a": nn.Linear(1, 1)}


HIDDEN: dict[str, tuple[Callable[[], Distiller], str]] = {
    "list": (lambda: distiller(with_attribute([mlp_critic()])), "SDS.extra holds a NetworkCritic"),
    "tuple": (lambda: distiller(with_attribute((discriminator(),))), "SDS.extra holds a DiscriminatorRatio"),
    "dictionary": (lambda: distiller(with_attribute({"a": [ParticleCritic()]})), "SDS.extra holds a ParticleCritic"),
    "network": (lambda: distiller(with_attribute([nn.Linear(2, 2)])), "SDS.extra holds a Linear"),
    "weight": (lambda: distiller(SDS(weight=WithNetwork())), "SDS.weight holds a Linear"),
    "guidance": (lambda: distiller(SDS(), guidance=Guided()), "Guided.networks holds a Linear"),
    "generator": (lambda: distiller(SDS(), Hiding()), "Hiding.layers holds a Linear"),
}


class Hiding(Generator):
    """A user's generator with layers in a plain list."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = [nn.Linear(2, 2)]

    def forward(self, batch: Batch, rng: torch.Generator | None = None) -> Sample:
        return Sample(self.layers[0](torch.randn(batch.rows, 2)))


@pytest.mark.parametrize(("make", "named"), HIDDEN.values(), ids=HIDDEN)
def test_modules_in_plain_containers_are_refused(make: Callable[[], Distiller], named: str) -> None:
    with pytest.raises(ValueError, match=rf"{named} that is not registered.*torch\.nn\.ModuleList"):
        make()


def test_registered_or_frozen_modules_are_allowed_in_containers() -> None:
    critic = mlp_critic()
    loss = VSD(critic)
    loss.also = [critic, nn.Linear(2, 2).requires_grad_(False)]
    assert distiller(loss).critics == [critic]
    base = NetworkTeacher(MLPBackbone((2,), 8, 2), prediction="epsilon")
    assert len(distiller(VSD(LoRACritic(LoRA(2, targets=["layers.1"]), base))).critics) == 1


class Misshapen(SDS):
    """A user's loss of which one part has shape (B, 1)."""

    def __init__(self, part: str, **settings: object) -> None:
        super().__init__(**settings)  # type: ignore[arg-type]
        self.part = part

    def baseline(self, diffused: Diffused, teacher: Teacher, guidance: Guidance) -> Tensor:
        value = super().baseline(diffused, teacher, guidance)
        return value[:, :1] if self.part == "baseline" else value

    def reweight(self, diffused: Diffused, teacher: Teacher) -> Reweighting:
        parts = {"h": torch.ones_like(diffused.t)}
        if self.part != "baseline":
            parts[self.part] = torch.ones_like(diffused.t)[:, None]
        return Reweighting(**parts)


class ColumnWeight(TimeWeight):
    def __call__(self, t: Tensor, schedule: Schedule) -> Tensor:
        return torch.ones_like(t)[:, None]


class ColumnFactor(GradientNormalizer):
    def forward(self, diffused: Diffused, target: Prediction) -> Tensor:
        return torch.ones_like(diffused.t)[:, None]


class ColumnRatio(DensityRatio):
    def forward(self, diffused: Diffused, teacher: Teacher, critic: Critic | None) -> Tensor:
        return torch.zeros_like(diffused.t)[:, None]


class ColumnNormalizer(RatioNormalizer):
    def forward(self, log_r: Tensor, diffused: Diffused) -> Tensor:
        return log_r[:, None]


class OneRow(DiracCritic):
    def forward(self, diffused: Diffused) -> Prediction:
        x_t, t = diffused.x_t[:1], diffused.t[:1]
        return Prediction(x_t, t, diffused.schedule, epsilon=x_t)


class OneRowGuidance(CFG):
    def combine(self, predictions, condition):  # type: ignore[no-untyped-def]
        first = predictions[0]
        return Prediction(first.x_t[:1], first.t[:1], first.schedule, epsilon=first.epsilon[:1])


SHAPES: dict[str, tuple[Callable[[], Distiller], str]] = {
    **{
        part: (lambda part=part: distiller(Misshapen(part)), rf"{part} of Misshapen.reweight has shape \(4, 1\)")
        for part in ("h", "log_r", "log_r_used")
    },
    "baseline": (lambda: distiller(Misshapen("baseline")), r"baseline of Misshapen has shape \(4, 1\)"),
    "critic": (lambda: distiller(VSD(OneRow())), r"baseline of VSD has shape \(1, 2\)"),
    "guidance": (
        lambda: distiller(SDS(), guidance=OneRowGuidance()),
        r"OneRowGuidance's prediction has shape \(1, 2\)",
    ),
    "weight": (lambda: distiller(SDS(ColumnWeight())), r"weight of ColumnWeight has shape \(4, 1\)"),
    "normalizer": (lambda: distiller(SDS(normalizer=ColumnFactor())), r"factor of ColumnFactor has shape \(4, 1\)"),
    "ratio": (
        lambda: distiller(FDistill(JensenShannon(), DiracCritic(), ColumnRatio())),
        r"log_r of FDistill.reweight has shape \(4, 1\)",
    ),
    "ratio normalizer": (
        lambda: distiller(FDistill(JensenShannon(), ParticleCritic(), ExactRatio(), [ColumnNormalizer()])),
        r"log_r_used of FDistill.reweight has shape \(4, 1\)",
    ),
}


@pytest.mark.parametrize(("make", "message"), SHAPES.values(), ids=SHAPES)
def test_nothing_is_broadcast(make: Callable[[], Distiller], message: str) -> None:
    made = make()
    with pytest.raises(ValueError, match=rf"{message}; it must be \(4(, 2)?,?\), nothing is broadcast"):
        made.evaluate()


class ColumnGradient(SDS):
    """A user's loss that computes the whole gradient itself."""

    def gradient(self, diffused, teacher, guidance=None):  # type: ignore[no-untyped-def]
        from dataclasses import replace

        found = super().gradient(diffused, teacher, guidance)
        return replace(found, g=found.g[:, :1])


def test_a_gradient_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the gradient of the loss has shape \(4, 1\); it must be \(4, 2\)"):
        distiller(ColumnGradient()).evaluate()


def test_errors_of_critics_and_discriminators_are_one_number_for_each_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    critic, ratio = mlp_critic(), discriminator()
    teacher = NetworkTeacher(MLPBackbone((2,), 16, 2))
    made = Distiller(ImageParticles(torch.randn(4, 2)), teacher, FDistill(JensenShannon(), critic, ratio))
    diffused = made.diffused_sample()
    monkeypatch.setattr(critic, "training_error", lambda *_: torch.ones(4, 1))
    with pytest.raises(ValueError, match=r"training_error of NetworkCritic has shape \(4, 1\); it must be \(4,\)"):
        made.critic_error(diffused)
    monkeypatch.setattr(ratio, "training_error", lambda *_: torch.ones(()))
    with pytest.raises(ValueError, match=r"training_error of DiscriminatorRatio has shape \(\); it must be \(4,\)"):
        made.discriminator_error(diffused)
