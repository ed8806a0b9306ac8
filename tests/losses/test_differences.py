"""CSD, NFSD, SDS-Bridge and PDS; laws of CSD and DDS are in tests/laws, DDS's references in test_dds."""

import pytest
import torch
from diffusers import DDPMScheduler
from laws.quadrature import Prompted, moments, one_dimension
from torch import Tensor

from scoredistill import Condition, Distiller, Sample
from scoredistill.diffusion import CFG, LinearSchedule
from scoredistill.generators import ImageParticles
from scoredistill.losses import CSD, DDS, NFSD, PDS, SDS, Bridge, PosteriorWeight, ScoreDistillation
from scoredistill.rendering.camera import Camera
from scoredistill.teachers import GaussianMixture, Teacher
from scoredistill.testing import ReferenceTeacher

ROWS = {"t": torch.tensor([0.1, 0.19, 0.21, 0.7], dtype=torch.float64), "epsilon": torch.randn(4, 2).double()}
X = torch.randn(4, 2, dtype=torch.float64)


def of(loss: ScoreDistillation, scale: float = 7.5, teacher: Teacher | None = None) -> Distiller:
    return Distiller(ImageParticles(X), teacher or ReferenceTeacher(), loss, CFG(scale))


def csd(condition: Condition | None) -> Tensor:
    return of(CSD(), 1.0).gradient(X[:2], t=0.4, epsilon=torch.zeros(2, 2), condition=condition)


def test_a_negative_prompt_takes_the_unconditional_models_place() -> None:
    assert torch.equal(csd(Condition("left", negative_prompt="left")), torch.zeros(2, 2))
    there, back = csd(Condition("left", "up")), csd(Condition("up", "left"))
    assert there.abs().min() > 1e-3
    assert torch.equal(there, -back)
    torch.testing.assert_close(there, csd(Condition("left")) - csd(Condition("up")))


CAMERA = Camera.orbit(*(torch.full((2,), value) for value in (30.0, 15.0, 2.5, 40.0)))


@pytest.mark.parametrize("condition", [None, Condition(camera=CAMERA)], ids=["nothing", "a camera"])
def test_a_condition_without_prompt_and_class_is_refused(condition: Condition | None) -> None:
    with pytest.raises(ValueError, match=r"CSD compares a prompt or class .*: set data\.init_args\.prompt"):
        csd(condition)


def test_nfsd_is_the_guided_teacher_less_a_negative_prompts_above_the_threshold() -> None:
    """delta_D + s delta_C, with delta_D = A(none) below .2 and A(none) - A(poor) above."""
    ours, teacher = of(NFSD("poor")), ReferenceTeacher()
    g = ours.gradient(X, **ROWS, condition=Condition("left"))
    alpha, sigma = (each[:, None] for each in teacher.schedule(ROWS["t"]))
    at = alpha * X + sigma * ROWS["epsilon"], ROWS["t"]
    none, y, poor = (teacher(*at, c).epsilon for c in (None, Condition("left"), Condition("poor")))
    delta_d = torch.where(ROWS["t"][:, None] < 0.2, none, none - poor)
    torch.testing.assert_close(g, sigma**2 * (delta_d + 7.5 * (y - none)), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("condition", [Condition("left"), Condition(label=torch.tensor([0, 1, 1, 0]))])
def test_the_bridge_from_the_unconditional_model_is_s_csd(condition: Condition) -> None:
    g = of(Bridge(source=None, target="", switch=0.0)).gradient(X, **ROWS, condition=condition)
    assert torch.equal(g, of(CSD()).gradient(X, **ROWS, condition=condition))
    torch.testing.assert_close(g, 7.5 * of(CSD(), 1.0).gradient(X, **ROWS, condition=condition))


def test_the_bridge_is_sds_before_the_switch_and_compares_two_prompts_after_it() -> None:
    prompts = Condition("a cat", negative_prompt="up")
    at = {**ROWS, "condition": prompts}
    loss = Bridge(", poor", ", good", switch=0.5)
    assert torch.equal(of(loss).gradient(X, **at), of(SDS()).gradient(X, **at))
    sample = Sample(X, prompts)
    step = of(loss).evaluate(sample, t=ROWS["t"], epsilon=ROWS["epsilon"], progress=0.5)
    expected = of(CSD()).gradient(X, **{**at, "condition": Condition("a cat, good", "a cat, poor")})
    assert torch.equal(step.gradient.g, expected)


def z(x: Tensor, x0: Tensor, x_t: Tensor, t: int, scheduler: DDPMScheduler, back: int) -> Tensor:
    """The stochastic latent of DDPM's posterior from x_t to x_s, s = t - back, as the published code computes it."""
    betas = scheduler.betas.double()
    abar, abar_s = (1 - betas).cumprod(0)[[t, t - back]]
    beta = betas[t]
    mean = abar_s.sqrt() * beta / (1 - abar) * x0 + (1 - beta).sqrt() * (1 - abar_s) / (1 - abar) * x_t
    return (abar_s.sqrt() * x - mean) / (beta * (1 - abar_s) / (1 - abar)).sqrt()


@pytest.mark.parametrize("back", [1, 2])
def test_pds_against_the_posterior_of_diffusers(back: int) -> None:
    """The noise of x_s is common to sample and reference, and so is left out."""
    scheduler = DDPMScheduler(1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    schedule, r = LinearSchedule(), torch.tensor([[0.3, -0.1]])
    teacher = ReferenceTeacher(schedule=schedule)
    ours = of(PDS(r, prompt="left", interval=back / 1000), 1.0, teacher)
    for index in (30, 300, 700):
        t, epsilon = torch.full((4,), (index + 1) / 1000), ROWS["epsilon"]
        g = ours.gradient(X, t=t, epsilon=epsilon, condition=Condition("up"))
        expected = []
        for x, words in ((X, "up"), (r.expand(4, 2), "left")):
            x_t = schedule.alpha(t)[:, None] * x + schedule.sigma(t)[:, None] * epsilon
            expected.append(z(x, teacher(x_t, t, Condition(words)).x0, x_t, index, scheduler, back))
        torch.testing.assert_close(g, expected[0] - expected[1], rtol=2e-5, atol=2e-5)


def test_pds_with_an_exact_posterior_is_dds_with_another_weight() -> None:
    r, interval = torch.tensor([[0.3, -0.1]]), 0.01
    pds = of(PDS(r, prompt="left", interval=interval, step=interval))
    dds = of(DDS(r, prompt="left", weight=PosteriorWeight(interval, interval)))
    rows = {**ROWS, "condition": Condition("up")}
    torch.testing.assert_close(pds.gradient(X, **rows), dds.gradient(X, **rows), rtol=1e-10, atol=1e-12)


def test_pds_rests_where_dds_does_if_the_posterior_is_exact_and_nearer_the_reference_if_not() -> None:
    mu_r, mu_y, r = -1.0, 0.5, -0.7
    teacher = GaussianMixture(torch.tensor([[mu_r], [mu_y]]), 1.0, labels=torch.tensor([0, 1]))
    asked = Condition(label=torch.ones(40, dtype=torch.long))
    rest = r + mu_y - mu_r
    exact = one_dimension(PDS(torch.tensor([[r]]), label=0, interval=0.01, step=0.01), teacher)
    assert moments(exact, rest, asked) == pytest.approx((0, 0), abs=1e-10)
    published = one_dimension(PDS(torch.tensor([[r]]), label=0), teacher)
    mean, variance = moments(published, rest, asked)
    assert mean > 1e-3  # psi (x - r) > 0: descent moves x back toward r
    assert variance == pytest.approx(0, abs=1e-20)


def test_the_posterior_needs_times_above_its_interval() -> None:
    with pytest.raises(ValueError, match=r"PDS has no value at t = 0\.001"):
        of(PDS(X, prompt="left")).gradient(X, t=0.001, epsilon=X, condition=Condition("up"))


def test_nfsd_without_a_prompt_takes_the_unconditional_model() -> None:
    label = Condition(label=torch.tensor([0, 1, 1, 0]))
    g, direction = (of(loss).gradient(X, **ROWS, condition=label) for loss in (NFSD(), CSD()))
    torch.testing.assert_close(g[2:], direction[2:])
    assert one_dimension(NFSD(threshold=1.0), Prompted(0.5)).gradient(
        torch.ones(1, 1), t=0.5, epsilon=torch.zeros(1, 1), condition=Condition("y")
    ).shape == (1, 1)
