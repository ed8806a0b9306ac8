"""Teachers in closed form: mixtures of samples of any shape, and data sets."""

import pytest
import torch
from torch import Tensor

from scoredistill.diffusion import CosineSchedule, FlowSchedule, NoiseLevelTimesteps
from scoredistill.teachers import Digits, Empirical, GaussianMixture, Teacher, analytic
from scoredistill.types import Condition


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def points(n: int = 9, shape: tuple[int, ...] = (2,)) -> tuple[Tensor, Tensor]:
    return torch.randn(n, *shape, generator=rng(1)), torch.linspace(0.05, 0.95, n)


@pytest.mark.parametrize("shape", [(1,), (3,), (1, 2, 3), (2, 2, 2, 2)])
@pytest.mark.parametrize("form", ["scalar", "isotropic", "diagonal", "low rank", "full"])
def test_samples_may_have_any_shape(shape: tuple[int, ...], form: str) -> None:
    means, size = torch.randn(4, *shape, generator=rng()), torch.Size(shape).numel()
    settings = {
        "scalar": {"stds": 0.3},
        "isotropic": {"stds": torch.linspace(0.1, 0.4, 4)},
        "diagonal": {"stds": torch.rand(4, *shape, generator=rng())},
        "low rank": {"stds": 0.3, "factors": torch.randn(4, 1, *shape, generator=rng())},
        "full": {"covariances": torch.eye(size).expand(4, -1, -1)},
    }[form]
    teacher = GaussianMixture(means, **settings)
    x_t, t = points(5, shape)
    x_t.requires_grad_(True)
    log_prob = teacher.log_prob(x_t, t)
    (score,) = torch.autograd.grad(log_prob.sum(), x_t)
    assert log_prob.shape == (5,)
    torch.testing.assert_close(teacher(x_t, t).score, score, rtol=1e-8, atol=1e-9)
    assert teacher.sample(3, rng=rng())[0].shape == (3, *shape)


def labeled() -> GaussianMixture:
    means = torch.tensor([[1.0, 0.0], [-1.0, 0.5], [0.0, -1.0], [2.0, 2.0]])
    weights, labels = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([0, 1, 1, 5])
    return GaussianMixture(means, torch.tensor([0.1, 0.2, 0.3, 0.4]), weights, labels)


def test_labels_select_components_row_by_row() -> None:
    teacher, (x_t, t) = labeled(), points()
    part = GaussianMixture(teacher.means[1:3], torch.tensor([0.2, 0.3]), torch.tensor([2.0, 3.0]))
    only = teacher(x_t, t, Condition(label=torch.ones(9, dtype=torch.long)))
    torch.testing.assert_close(only.epsilon, part(x_t, t).epsilon)
    mixed = teacher.posterior(x_t, t, Condition(label=torch.tensor([0, 1, 5] * 3)))
    torch.testing.assert_close(mixed.epsilon[1::3], part(x_t[1::3], t[1::3]).epsilon)
    assert torch.equal(mixed.responsibilities[0::3, 0], torch.ones(3))
    unconditional = teacher.log_prob(x_t, t, Condition(prompt="anything"))
    assert torch.equal(unconditional, teacher.log_prob(x_t, t))


def test_conditional_densities_make_up_the_unconditional_one() -> None:
    teacher, (x_t, t) = labeled(), points()
    shares = {0: 0.1, 1: 0.5, 5: 0.4}
    parts = [
        share * teacher.log_prob(x_t, t, Condition(label=torch.full((9,), label))).exp()
        for label, share in shares.items()
    ]
    torch.testing.assert_close(sum(parts), teacher.log_prob(x_t, t).exp())


def test_unknown_and_missing_labels_are_errors() -> None:
    x_t, t = points(2)
    with pytest.raises(ValueError, match=r"no component has label 7; labels are \[0, 1, 5\]"):
        labeled()(x_t, t, Condition(label=torch.tensor([1, 7])))
    with pytest.raises(ValueError, match="but this mixture has none: pass labels="):
        GaussianMixture(torch.zeros(1, 2))(x_t, t, Condition(label=torch.tensor([0, 0])))


@pytest.mark.parametrize("weights", [[1.0, 2.0, 3.0, 4.0], [0.1, 0.2, 0.3, 0.4]])
def test_weights_are_normalized(weights: list[float]) -> None:
    teacher = GaussianMixture(torch.zeros(4, 2), 1.0, torch.tensor(weights))
    torch.testing.assert_close(teacher.log_weights.exp(), torch.tensor([0.1, 0.2, 0.3, 0.4]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weights": torch.tensor([1.0, 0.0, 1.0])}, "weights must be 3 positive numbers"),
        ({"weights": torch.ones(2)}, "weights must be 3 positive numbers"),
        ({"labels": torch.tensor([0, 1])}, "labels must be 3 integers"),
        ({"stds": torch.ones(3, 5)}, r"stds must be a scalar, \(3,\) or \(3, 2\)"),
        ({"factors": torch.ones(3, 1, 5)}, "factors must be"),
        ({"factors": torch.ones(3, 1, 2), "stds": torch.ones(3, 2)}, "in addition to isotropic stds"),
        ({"covariances": torch.ones(3, 4, 4)}, r"covariances must be \(3, 2, 2\)"),
        ({"covariances": torch.ones(3, 2, 2), "stds": 0.1}, "without stds and factors"),
    ],
)
def test_shapes_that_disagree_are_errors(settings: dict[str, Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GaussianMixture(torch.zeros(3, 2), **settings)


def test_plain_numbers_need_a_dimension() -> None:
    with pytest.raises(ValueError, match=r"\(K, 1\) for scalars; got \(3,\)"):
        GaussianMixture(torch.zeros(3))


@pytest.mark.parametrize("factors", [None, torch.ones(6, 1, 2)], ids=["shared", "general"])
@pytest.mark.parametrize("elements", [1, 25, 60])
def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch, factors: Tensor | None, elements: int) -> None:
    teacher = GaussianMixture(torch.randn(6, 2), 0.3, labels=torch.arange(6) % 2, factors=factors)
    (x_t, t), condition = points(11), Condition(label=torch.arange(11) % 2)
    whole = teacher.posterior(x_t, t, condition)
    calls = []
    original = analytic.diffused_mixture
    monkeypatch.setattr(analytic, "CHUNK_ELEMENTS", elements)
    monkeypatch.setattr(analytic, "diffused_mixture", lambda x, *rest: calls.append(len(x)) or original(x, *rest))
    parts = teacher.posterior(x_t, t, condition)
    assert sum(calls) == 11
    assert max(calls) <= max(1, elements // 6)
    for name in ("epsilon", "log_prob", "responsibilities"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name), rtol=1e-13, atol=1e-13)


def test_empirical_is_the_softmax_over_the_data() -> None:
    data, schedule = torch.randn(50, 1, 2, 2, generator=rng()), FlowSchedule()
    teacher = Empirical(data, schedule=schedule)
    x_t, t = points(9, (1, 2, 2))
    a, s = schedule.alpha(t), schedule.sigma(t)
    for i in range(9):
        squared = ((x_t[i] - a[i] * data) ** 2).sum((1, 2, 3))
        mean = torch.einsum("k,kchw->chw", torch.softmax(-squared / (2 * s[i] ** 2), 0), data)
        torch.testing.assert_close(teacher(x_t, t).x0[i], mean, rtol=1e-8, atol=1e-9)
    nearest = teacher.posterior(data[:9], torch.full((9,), 1e-3)).responsibilities
    torch.testing.assert_close(nearest, torch.eye(9, 50))


def test_digits_are_labeled_pictures() -> None:
    teacher = Digits(std=0.05)
    assert teacher.means.shape == (1797, 64)
    assert teacher.shape == (1, 8, 8)
    assert (teacher.means.min(), teacher.means.max()) == (-1, 1)
    assert teacher.labels is not None
    assert torch.bincount(teacher.labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    condition = Condition(label=torch.tensor([3, 8]))
    x, component = teacher.sample(2, condition, rng())
    assert x.shape == (2, 1, 8, 8)
    assert torch.equal(teacher.labels[component], condition.label)
    t = NoiseLevelTimesteps(1.0)(2, teacher.schedule)
    assert torch.equal(teacher(x, t, condition).x0.isfinite(), torch.ones(2, 1, 8, 8, dtype=torch.bool))


@pytest.mark.parametrize("form", ["isotropic", "diagonal", "low rank", "full"])
def test_samples_have_the_mixtures_moments(form: str) -> None:
    square = torch.randn(3, 2, 2, generator=rng())
    covariances = {
        "isotropic": 0.25 * torch.eye(2).expand(3, 2, 2),
        "diagonal": torch.diag_embed(torch.tensor([[0.04, 1.0], [0.25, 0.09], [1.0, 1.0]])),
        "low rank": 0.01 * torch.eye(2) + square[:, :1].transpose(1, 2) @ square[:, :1],
        "full": square.transpose(1, 2) @ square,
    }[form]
    settings = {
        "isotropic": {"stds": 0.5},
        "diagonal": {"stds": covariances.diagonal(dim1=1, dim2=2).sqrt()},
        "low rank": {"stds": 0.1, "factors": square[:, :1]},
        "full": {"covariances": covariances},
    }[form]
    weights = torch.tensor([0.2, 0.5, 0.3])
    teacher = GaussianMixture(torch.randn(3, 2, generator=rng(2)), weights=weights, **settings)
    n = 40_000
    # Four standard errors, for there are 21 comparisons in each of four forms, under every torch's own random numbers.
    x, component = teacher.sample(n, rng=rng(3))
    shares = torch.bincount(component) / n
    assert bool(((shares - weights).abs() < 4 * (weights * (1 - weights) / n).sqrt()).all())
    for k in range(3):
        inside = x[component == k] - teacher.means[k]
        variance, m = covariances[k].diagonal(), len(inside)
        assert bool((inside.mean(0).abs() < 4 * (variance / m).sqrt()).all())
        # Var(x_i x_j) = c_ii c_jj + c_ij^2 for a centered Gaussian.
        error = (variance[:, None] * variance + covariances[k] ** 2) / m
        assert bool(((inside.T @ inside / m - covariances[k]).abs() < 4 * error.sqrt()).all())


@pytest.mark.parametrize("form", ["isotropic", "low rank"])
@pytest.mark.parametrize("ratio", [1e-3, 1e-1, 1.0, 60.0])
def test_float32_is_accurate_at_every_noise_level(form: str, ratio: float) -> None:
    means = torch.randn(20, 3, 8, 8, generator=rng())
    factors = torch.randn(20, 2, 3, 8, 8, generator=rng(1)) if form == "low rank" else None
    exact = GaussianMixture(means, 0.05, factors=factors)
    single = GaussianMixture(means.float(), 0.05, factors=None if factors is None else factors.float())
    t = NoiseLevelTimesteps(ratio)(20, exact.schedule).float()
    a, s = (value.double()[:, None, None, None] for value in (exact.schedule.alpha(t), exact.schedule.sigma(t)))
    x_t = (a * means + s * torch.randn(20, 3, 8, 8, generator=rng(4))).float()
    expected, ours = exact(x_t.double(), t.double()).epsilon, single(x_t, t).epsilon
    assert ours.dtype == torch.float32
    # Rounding x_t itself moves epsilon by 2^-24 |x_t| sigma / (alpha^2 std^2 + sigma^2).
    unavoidable = 2.0**-24 * float((x_t.abs().max() * s / (a**2 * 0.05**2 + s**2)).max())
    assert float((ours - expected).abs().max()) < 10 * unavoidable + 1e-5


def test_a_teacher_without_a_density_raises_a_clear_error() -> None:
    class Silent(Teacher):
        def forward(self, x_t: Tensor, t: Tensor, condition: Condition | None = None):  # type: ignore[no-untyped-def]
            raise AssertionError

    with pytest.raises(TypeError, match="Silent has no closed-form density"):
        Silent(CosineSchedule()).log_prob(*points(2))


@pytest.mark.parametrize("stds", [-0.5, torch.tensor([1.0, -0.5]), torch.tensor([[1.0, 1.0], [-0.5, 1.0]])])
def test_negative_standard_deviations_are_refused(stds) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=r"stds must be at least 0, got -0\.5"):
        GaussianMixture(torch.zeros(2, 2), stds)


@pytest.mark.parametrize("shared", [True, False])
def test_one_class_of_a_mixture(shared: bool) -> None:
    means, labels = torch.randn(5, 2), torch.tensor([0, 1, 1, 2, 1])
    stds = torch.tensor(0.3) if shared else torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5])
    mixture = GaussianMixture(means, stds, torch.arange(1.0, 6.0), labels)
    one, x_t = mixture.of_class(1), torch.randn(4, 2)
    condition = Condition(label=torch.ones(4, dtype=torch.long))
    torch.testing.assert_close(one(x_t, 0.5).epsilon, mixture(x_t, 0.5, condition).epsilon)
    torch.testing.assert_close(one.log_prob(x_t, 0.5), mixture.log_prob(x_t, 0.5, condition))
    assert one.labels is None
    assert len(mixture.means) == 5
    with pytest.raises(ValueError, match="no component has label 7"):
        mixture.of_class(7)
