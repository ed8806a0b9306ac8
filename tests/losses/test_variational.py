"""Variants of VSD."""

from dataclasses import replace

import pytest
import torch
from laws.quadrature import ALPHA, SIGMA, moments, normal, one_dimension, time_at
from laws.zoo import CAMERAS, mlp, mlp_critic
from torch import Tensor, nn

from scoredistill import Condition, Distiller
from scoredistill.critics import Critic, DiracCritic, ExactCritic, LoRACritic, ParticleCritic, TrainedCritic
from scoredistill.critics.trained import reuse_forward
from scoredistill.diffusion import CFG, Prediction, UniformTimesteps, UniformWeight
from scoredistill.generators import ImageParticles
from scoredistill.losses import (
    ASD,
    ESD,
    SDS,
    VSD,
    DiffInstruct,
    LearnedManifold,
    LookaheadVSD,
    Objective,
    SwiftBrush,
)
from scoredistill.teachers import Teacher
from scoredistill.testing import ReferenceTeacher
from scoredistill.types import Diffused, Sample

X = torch.randn(6, 2, dtype=torch.float64)
T = torch.linspace(0.2, 0.8, 6).double()
EPSILON = torch.randn(6, 2, dtype=torch.float64)


def of(loss: Objective, scale: float = 1.0, teacher: Teacher | None = None) -> Distiller:
    return Distiller(ImageParticles(X), teacher or ReferenceTeacher(), loss, CFG(scale))


def gradient(loss: Objective, scale: float = 1.0, sample: Sample | None = None) -> Tensor:
    sample = sample or Sample(X, Condition("left"), particle=torch.arange(6))
    rng = torch.Generator().manual_seed(0)
    return of(loss, scale).evaluate(sample, t=T, epsilon=EPSILON, rng=rng).gradient.g


@pytest.mark.parametrize(
    ("variant", "vsd"),
    [
        (DiffInstruct, lambda critic: VSD(critic, UniformWeight())),
        (SwiftBrush, VSD),
        (lambda critic: ESD(critic, entropy=0.0), VSD),
        (lambda critic: ASD(critic, gamma=0.0), VSD),
        (lambda critic: LookaheadVSD(critic, eta=0.0), VSD),
    ],
    ids=["DiffInstruct", "SwiftBrush", "ESD", "ASD", "LookaheadVSD"],
)
def test_a_variant_without_its_change_is_vsd(variant, vsd) -> None:  # type: ignore[no-untyped-def]
    critic = mlp_critic()
    assert torch.equal(gradient(variant(critic), 7.5), gradient(vsd(critic), 7.5))


def test_swiftbrush_trains_adapters_of_rank_64() -> None:
    critic = SwiftBrush().critic
    assert isinstance(critic, LoRACritic)
    assert (critic.lora.rank, critic.lora.alpha) == (64, 108)


def test_esd_mixes_the_score_of_all_views_with_that_of_the_own_view() -> None:
    sample = Sample(X, Condition("left", camera=CAMERAS), particle=torch.arange(6), view_index=torch.arange(6) % 2)
    anywhere = Sample(X, Condition("left"), particle=torch.arange(6))
    own, marginal = (gradient(VSD(ParticleCritic(0.3)), sample=each) for each in (sample, anywhere))
    assert (own - marginal).abs().max() > 1e-3
    for entropy in (0.3, 1.0):
        g = gradient(ESD(ParticleCritic(0.3), entropy), sample=sample)
        torch.testing.assert_close(g, entropy * marginal + (1 - entropy) * own, rtol=1e-11, atol=1e-12)


class OneScene(Critic):
    """The distribution of one scene's renders: a point mass from a known view, N(0, tau^2) over all views."""

    def __init__(self, tau: float) -> None:
        super().__init__()
        self.over_views = ExactCritic(normal(0.0, tau))

    def forward(self, diffused: Diffused) -> Prediction:
        return (DiracCritic() if diffused.sample.view_index is not None else self.over_views)(diffused)


@pytest.mark.parametrize("entropy", [0.75, 0.95])
def test_esd_in_closed_form(entropy: float) -> None:
    """One scene whose views are N(0, tau^2) rests at tau^2 = lambda S^2 - (1 - lambda) sigma^2 / alpha^2."""
    std, x = 1.2, torch.linspace(-2, 2, 5)[:, None]
    tau = (entropy * std**2 - (1 - entropy) * SIGMA**2 / ALPHA**2) ** 0.5
    at = {"t": time_at(ALPHA), "epsilon": torch.zeros(5, 1)}  # g is affine in epsilon: its mean is its value at 0
    for ours, moves in ((tau, False), (1.1 * tau, True)):
        distiller = one_dimension(ESD(OneScene(ours), entropy, UniformWeight()), normal(0.0, std))
        g = distiller.gradient(x, **at, sample=Sample(x, view_index=torch.arange(5)))
        assert (g.abs().max() > 1e-2) == moves
        assert moves or g.abs().max() < 1e-12


class Free(TrainedCritic):
    """A critic whose prediction at the given samples is a free parameter."""

    def __init__(self, epsilon: Tensor) -> None:
        super().__init__()
        self.value = nn.Parameter(epsilon.clone())

    def predict(self, diffused: Diffused) -> Prediction:
        return Prediction(diffused.x_t, diffused.t, diffused.schedule, epsilon=self.value)

    def error(self, predicted: Prediction, diffused: Diffused) -> Tensor:
        return (predicted.epsilon - diffused.epsilon).square().flatten(1).sum(1)


@pytest.mark.parametrize("gamma", [-0.75, -0.3])
def test_asd_with_its_ideal_critic_is_vsd_divided_by_1_plus_gamma(gamma: float) -> None:
    """At one x_t and noise the ideal critic of VSD predicts epsilon; that of ASD minimizes both errors."""
    loss = ASD(Free(torch.zeros(6, 2)), gamma)
    distiller = of(loss)
    sample = Sample(X, Condition("left"))
    diffused = distiller.diffuse(sample, distiller.timesteps, T, EPSILON)
    assert len(distiller.critics) == 2
    error = distiller.critic_error(diffused).sum()
    (slope,) = torch.autograd.grad(error, loss.critic.value)  # type: ignore[attr-defined]
    with torch.no_grad():  # Newton's step, exact for a quadratic
        loss.critic.value.sub_(slope / (2 * (1 + gamma)))  # type: ignore[attr-defined]
    g = distiller.evaluate(sample, t=T, epsilon=EPSILON).gradient.g
    vsd = of(VSD(Free(EPSILON))).evaluate(sample, t=T, epsilon=EPSILON).gradient.g
    torch.testing.assert_close(g, vsd / (1 + gamma), rtol=1e-11, atol=1e-12)


def test_the_push_is_only_the_critics_and_reuses_its_call() -> None:
    loss = ASD(mlp_critic())
    distiller, calls = of(loss), []
    loss.critic.denoiser.network.register_forward_hook(lambda *_: calls.append(1))  # type: ignore[union-attr,attr-defined]
    with reuse_forward(*distiller.critics):
        step = distiller.evaluate(Sample(X, Condition("left")), t=T, epsilon=EPSILON)
        distiller.critic_error(step.diffused).mean().backward()
    assert len(calls) == 1
    assert all(parameter.grad is None for parameter in distiller.teacher.parameters())
    with pytest.raises(ValueError, match=r"gamma must lie in \(-1, 0\]"):
        ASD(mlp_critic(), gamma=0.5)


def test_the_lookahead_is_the_critic_after_its_step_to_first_order() -> None:
    """B(phi + step) - B(phi) by finite differences: the remainder is of second order in eta."""
    critic = mlp_critic()
    plain, remainders = gradient(VSD(critic)), []
    for eta in (1e-2, 1e-3):
        loss = LookaheadVSD(critic, eta)
        linear = gradient(loss) - plain
        distiller = of(loss)
        rng = torch.Generator().manual_seed(0)
        sample = Sample(X, Condition("left"), particle=torch.arange(6))
        diffused = distiller.diffuse(sample, distiller.timesteps, T, EPSILON, rng=rng)
        trained = [p for p in critic.parameters() if p.requires_grad]
        step = loss._step(trained, diffused, distiller.teacher)
        with torch.no_grad():
            for parameter, change in zip(trained, step, strict=True):
                parameter.add_(change)
            ahead = gradient(VSD(critic)) - plain
            for parameter, change in zip(trained, step, strict=True):
                parameter.sub_(change)
        assert linear.abs().max() > 0.01 * eta
        remainders.append(float((ahead - linear).abs().max()))
    # The remainder is c eta^2 (1 + O(eta)); at eta = .01 its next order is some tenths of it.
    assert remainders[0] / remainders[1] == pytest.approx(100, rel=0.3)


def test_the_lookahead_needs_a_distiller() -> None:
    critic, teacher = mlp_critic(), ReferenceTeacher()
    diffused = Diffused.diffuse(Sample(X), T, EPSILON, teacher.schedule)
    with pytest.raises(ValueError, match="LookaheadVSD has no timesteps yet"):
        LookaheadVSD(critic).gradient(diffused, teacher)


class Zero(nn.Module):
    """A network that returns zeros."""

    def forward(self, x: Tensor, log_snr: Tensor, condition: Condition | None) -> Tensor:
        return torch.zeros_like(x)


def test_a_manifold_without_bias_is_sds() -> None:
    loss = LearnedManifold(mlp())
    loss.bias.network = Zero()
    torch.testing.assert_close(gradient(loss, 7.5), gradient(SDS(), 7.5), rtol=1e-10, atol=1e-12)


def test_the_bias_learns_the_teachers_clean_prediction_of_real_data() -> None:
    """Its error is that of b against x0(x_t), x_t the diffused data, and without data the teacher's samples serve."""
    loss = LearnedManifold(mlp())
    loss.bias.network = Zero()
    distiller, data = of(loss), torch.randn(6, 2, dtype=torch.float64)
    diffused = distiller.diffuse(Sample(X, Condition("left"), data=data), UniformTimesteps(), T, EPSILON)
    teacher = distiller.teacher
    for sample, real in (
        (diffused, data),
        (replace(diffused, sample=Sample(X, Condition("left"))), teacher(diffused.x_t, T, Condition("left")).x0),
    ):
        at = Diffused.diffuse(Sample(real), T, EPSILON, teacher.schedule)
        expected = (real - teacher(at.x_t, T).x0).square().mean(1)
        torch.testing.assert_close(distiller.critic_error(sample), expected)


def test_the_bias_of_a_gaussian_removes_the_pull_to_its_mean() -> None:
    """b(x, t) = E[x0(x_t) | x] on N(mu, S^2): the unguided g has no mean left, at any x."""
    mean, std = 0.4, 0.8
    teacher, loss = normal(mean, std), LearnedManifold(mlp((1,)), UniformWeight())

    class Exact(nn.Module):
        def forward(self, x: Tensor, log_snr: Tensor, condition: Condition | None) -> Tensor:
            gain = log_snr.exp() * std**2 / (log_snr.exp() * std**2 + 1)
            return (gain[:, None] - 1) * (x - mean)

    loss.bias.network = Exact()
    distiller = one_dimension(loss, teacher)
    for x in (-1.0, 0.4, 2.0):
        assert moments(distiller, x)[0] == pytest.approx(0, abs=1e-12)
