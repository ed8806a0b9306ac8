"""Trained critics: what they converge to, and what they are conditioned on."""

import pytest
import torch
from laws.zoo import SCHEDULES, name, training_loss
from torch import Tensor, nn

from scoredistill.critics import NetworkCritic
from scoredistill.diffusion import CosineSchedule, NoiseLevelTimesteps, Schedule, UniformTimesteps
from scoredistill.networks import Backbone, ConditionEmbedding, DiffusersBackbone, MLPBackbone, Parameterization
from scoredistill.rendering.camera import Camera
from scoredistill.teachers import GaussianMixture
from scoredistill.types import Condition, Diffused, Sample

SCHEDULE = CosineSchedule()
PREDICTIONS: list[Parameterization] = ["edm", "epsilon", "x0", "v", "flow", "score"]


def cameras(n: int) -> Camera:
    at = torch.linspace(0, 300, n)
    return Camera.orbit(at, at * 0 + 15, at * 0 + 2.5, at * 0 + 40)


def awake(network: Backbone) -> Backbone:
    """The network with a nonzero output layer."""
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter)
    return network


class Affine(Backbone):
    """y = x a + b: contains the optimum for a Gaussian at one noise level."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dims, dims)

    def forward(self, x: Tensor, log_snr: Tensor, condition: Condition | None) -> Tensor:
        return self.linear(x)


def gaussian_batch(n: int, dims: int, t: Tensor, schedule: Schedule) -> tuple[GaussianMixture, Diffused]:
    """q = N(.5, .49 I) diffused, with exact sample moments of x and epsilon."""
    raw = torch.randn(n, 2 * dims, generator=torch.Generator().manual_seed(0))
    raw = raw - raw.mean(0)
    white = raw @ torch.linalg.inv(torch.linalg.cholesky(raw.T @ raw / n)).T
    q = GaussianMixture(torch.full((1, dims), 0.5), 0.7, schedule=schedule)
    return q, Diffused.diffuse(Sample(0.5 + 0.7 * white[:, :dims]), t, white[:, dims:], schedule)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_minimizer_of_the_training_loss_is_the_score_of_q(prediction: Parameterization, schedule: Schedule) -> None:
    critic = NetworkCritic(Affine(2), prediction)
    q, diffused = gaussian_batch(50, 2, NoiseLevelTimesteps(0.8)(50, schedule), schedule)
    optimizer = torch.optim.LBFGS(
        critic.parameters(), max_iter=200, tolerance_grad=1e-13, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = training_loss(critic, diffused)
        loss.backward()
        return loss

    optimizer.step(closure)  # type: ignore[arg-type]
    ours = critic(diffused).epsilon
    torch.testing.assert_close(ours, q(diffused.x_t, diffused.t).epsilon, rtol=1e-7, atol=1e-7)


def test_a_trained_mlp_has_the_score_of_q_at_every_noise_level() -> None:
    q = GaussianMixture(torch.tensor([[1.5, 0.0], [-1.5, 0.5]]), 0.5)
    critic, rng = NetworkCritic(MLPBackbone((2,), hidden=48, layers=2)), torch.Generator()
    rng.manual_seed(0)
    steps = 500
    optimizer = torch.optim.Adam(critic.parameters(), lr=5e-3)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)

    def batch(n: int) -> Diffused:
        x = q.sample(n, rng=rng)[0]
        t = UniformTimesteps(0.05, 0.95)(n, SCHEDULE, rng=rng)
        return Diffused.diffuse(Sample(x), t, torch.randn(n, 2, generator=rng), SCHEDULE)

    def error() -> float:
        at = batch(4000)
        with torch.no_grad():
            ours = critic(at).epsilon
        return float((ours - q(at.x_t, at.t).epsilon).pow(2).mean().sqrt())

    assert error() > 0.3
    for _ in range(steps):
        optimizer.zero_grad()
        training_loss(critic, batch(256)).backward()
        optimizer.step()
        decay.step()
    assert error() < 0.08  # epsilon has unit variance; three seeds gave .052 to .056


def mlp(**settings: bool | int) -> Backbone:
    return awake(MLPBackbone((1, 8, 8), hidden=32, layers=2, **settings))  # type: ignore[arg-type]


def unet(camera_dropout: float = 0.0, **settings: bool | int) -> Backbone:
    from diffusers import UNet2DModel

    network = UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        add_attention=False,
        class_embed_type="identity" if settings else None,
    )
    return DiffusersBackbone(network, camera_dropout=camera_dropout, **settings)  # type: ignore[arg-type]


def text_unet() -> Backbone:
    from diffusers import UNet2DConditionModel

    network = UNet2DConditionModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=6,
        attention_head_dim=4,
    )
    return DiffusersBackbone(network)


def pictures(n: int = 3) -> Diffused:
    x = torch.randn(n, 1, 8, 8)
    return Diffused(x, torch.linspace(0.2, 0.8, n), torch.zeros_like(x), Sample(x), SCHEDULE)


@pytest.mark.parametrize("make", [mlp, unet], ids=["MLP", "UNet2DModel"])
def test_each_row_depends_on_its_own_label_and_camera(make) -> None:  # type: ignore[no-untyped-def]
    critic = NetworkCritic(make(classes=4, camera=True))
    at = pictures()
    same = Condition(label=torch.zeros(3, dtype=torch.long), camera=cameras(1)[torch.zeros(3, dtype=torch.long)])
    label = Condition(label=torch.tensor([0, 2, 0]), camera=same.camera)
    camera = Condition(label=same.label, camera=cameras(2)[torch.tensor([0, 0, 1])])
    with torch.no_grad():
        plain, *others = (critic(at.under(condition)).value for condition in (same, label, camera))
    assert plain.shape == at.x_t.shape
    changed = [(other - plain).abs().amax((1, 2, 3)) for other in others]
    assert [(c > 1e-4).tolist() for c in changed] == [[False, True, False], [False, False, True]]
    assert max(float(c[~(c > 1e-4)].max()) for c in changed) < 1e-12


@pytest.mark.parametrize("make", [mlp, unet], ids=["MLP", "UNet2DModel"])
def test_missing_labels_and_cameras_are_errors(make) -> None:  # type: ignore[no-untyped-def]
    at = pictures()
    labeled, seen = (NetworkCritic(make(**setting)) for setting in ({"classes": 4}, {"camera": 1}))
    for condition in (None, Condition("a mug"), Condition(camera=cameras(3))):
        with pytest.raises(ValueError, match="built with classes=, but the batch has no labels"):
            labeled(at.under(condition))
    for condition in (None, Condition(label=torch.zeros(3, dtype=torch.long))):
        with pytest.raises(ValueError, match="built with camera=True, but the batch has no cameras"):
            seen(at.under(condition))


def test_cameras_are_dropped_at_their_rate_and_only_in_training() -> None:
    embedding = ConditionEmbedding(4, camera=True, camera_dropout=0.25)
    n = 4000
    condition = Condition(camera=cameras(1)[torch.zeros(n, dtype=torch.long)])
    hidden = (embedding(condition, torch.zeros(n, 1)) == 0).all(1)
    assert float(hidden.double().mean()) == pytest.approx(0.25, abs=3 * (0.25 * 0.75 / n) ** 0.5)
    assert not (embedding.eval()(condition, torch.zeros(n, 1)) == 0).any()


def test_text_embeddings_reach_the_cross_attention() -> None:
    critic = NetworkCritic(text_unet())
    at = pictures()
    embeddings = torch.randn(3, 5, 6)
    other = embeddings.clone()
    other[1] += 1
    with torch.no_grad():
        first, second = (critic(at.under(Condition(embeddings=e))).value for e in (embeddings, other))
    assert (first - second).abs().amax((1, 2, 3)).gt(1e-5).tolist() == [False, True, False]


@pytest.mark.parametrize("make", [mlp, unet], ids=["MLP", "UNet2DModel"])
def test_predictions_depend_on_the_noise_level(make) -> None:  # type: ignore[no-untyped-def]
    critic = NetworkCritic(make())
    at = pictures()
    x, t = at.x_t, at.t
    other = t.clone()
    other[2] += 0.1
    outputs = [critic.denoiser.network(x, SCHEDULE.log_snr(time), None) for time in (t, other)]
    assert (outputs[0] - outputs[1]).abs().amax((1, 2, 3)).gt(1e-4).tolist() == [False, False, True]


def test_a_unet_that_takes_no_embedding_is_refused() -> None:
    network = unet().network  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match='needs num_class_embeds or class_embed_type: "identity"'):
        DiffusersBackbone(network, classes=3)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
def test_the_network_sees_about_unit_variance(schedule: Schedule) -> None:
    seen: list[Tensor] = []

    class Eye(Backbone):
        def forward(self, x: Tensor, log_snr: Tensor, condition: Condition | None) -> Tensor:
            seen.append(x)
            return x

    n = 2000
    diffused = Diffused.diffuse(Sample(torch.randn(n, 4)), UniformTimesteps()(n, schedule), torch.randn(n, 4), schedule)
    NetworkCritic(Eye())(diffused)
    assert float(seen[0].var()) == pytest.approx(1, abs=3 * (2 / (4 * n)) ** 0.5)


def test_training_reaches_every_parameter_and_no_sample() -> None:
    critic = NetworkCritic(mlp(classes=2, camera=True))
    x = torch.randn(4, 1, 8, 8, requires_grad=True)
    sample = Sample(x, Condition(label=torch.tensor([0, 1, 0, 1]), camera=cameras(4)))
    diffused = Diffused.diffuse(sample, torch.full((4,), 0.5), torch.randn(4, 1, 8, 8), SCHEDULE)
    training_loss(critic, diffused).backward()
    assert all(bool(parameter.grad.any()) for parameter in critic.parameters())
    assert x.grad is None
