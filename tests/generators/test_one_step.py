"""Generators from noise."""

import pytest
import torch
from torch import Tensor

from scoredistill import Distiller
from scoredistill.critics import NetworkCritic, ParticleCritic
from scoredistill.diffusion import CosineSchedule, EDMSchedule, FlowSchedule, Schedule
from scoredistill.divergences import ForwardKL
from scoredistill.generators import OneStepUNet
from scoredistill.losses import VSD, FDistill
from scoredistill.networks import Denoiser, DiffusersBackbone, LoRA, MLPBackbone, Parameterization
from scoredistill.ratios import ExactRatio
from scoredistill.teachers import GaussianMixture, NetworkTeacher
from scoredistill.types import Batch, Condition, Diffused, Sample


def mlp(classes: int | None = None) -> MLPBackbone:
    network = MLPBackbone((2,), hidden=16, layers=2, classes=classes)
    torch.nn.init.normal_(network.out.weight)
    return network


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("schedule", [EDMSchedule(), CosineSchedule(), FlowSchedule()])
@pytest.mark.parametrize("prediction", ["edm", "epsilon", "v", "flow"])
def test_a_sample_is_the_clean_prediction_from_pure_noise(prediction: Parameterization, schedule: Schedule) -> None:
    network = mlp()
    student = OneStepUNet((2,), network, prediction, 0.5, times=[0.9], schedule=schedule)
    x = student(Batch(size=5), rng()).x
    t = torch.full((5,), 0.9)
    x_t = schedule.sigma(t)[:, None] * torch.randn(5, 2, generator=rng())
    assert torch.equal(x, Denoiser(network, prediction, 0.5)(x_t, t, None, schedule).x0)
    assert x.requires_grad


def teacher_of(network: MLPBackbone) -> NetworkTeacher:
    return NetworkTeacher(network, sigma_data=0.6)


def test_a_student_starts_as_the_teacher_and_leaves_it_alone() -> None:
    teacher = teacher_of(mlp())
    student = OneStepUNet((2,))
    distiller = Distiller(student, teacher, VSD(NetworkCritic()))
    t = torch.ones(3)
    x_t = 80 * torch.randn(3, 2, generator=rng())
    assert torch.equal(student(Batch(size=3), rng()).x, teacher(x_t, t).x0)
    assert all(weight.requires_grad for weight in student.parameters())
    assert not any(weight.requires_grad for weight in teacher.parameters())
    critic = distiller.critics[0]
    at = Diffused(x_t, t, torch.zeros_like(x_t), Sample(x_t), teacher.schedule)
    assert torch.equal(critic(at).x0, teacher(x_t, t).x0)
    ids = [{id(weight) for weight in part.parameters()} for part in (student, teacher, critic)]
    assert not (ids[0] & ids[1] | ids[0] & ids[2] | ids[1] & ids[2])


def test_a_teacher_without_network_is_a_clear_error() -> None:
    teacher = GaussianMixture(torch.zeros(1, 2), 1.0)
    with pytest.raises(ValueError, match="GaussianMixture has no network to initialize the student"):
        Distiller(OneStepUNet((2,)), teacher, VSD(ParticleCritic()))
    with pytest.raises(ValueError, match="to initialize the critic"):
        Distiller(OneStepUNet((2,), mlp()), teacher, VSD(NetworkCritic()))


def test_evaluation_takes_every_step_and_only_the_last_has_a_graph() -> None:
    schedule, calls = EDMSchedule(), []
    student = OneStepUNet((2,), mlp(), times=[1.0, 0.6, 0.3], schedule=schedule).eval()
    student.denoiser.network.register_forward_hook(lambda m, i, output: calls.append(output.requires_grad))  # type: ignore[union-attr]
    x = student(Batch(size=4), rng()).x
    assert calls == [False, False, True]
    same, y = rng(), torch.zeros(4, 2)
    for k, time in enumerate((1.0, 0.6, 0.3)):
        t = torch.full((4,), time)
        x_t = schedule.sigma(t)[:, None] * torch.randn(4, 2, generator=same) + (y if k else 0)
        y = student.denoiser(x_t, t, None, schedule).x0  # type: ignore[misc]
    torch.testing.assert_close(x, y)


def test_training_simulates_backward_to_a_step_drawn_at_random() -> None:
    student = OneStepUNet((2,), mlp(), times=[1.0, 0.6, 0.3], schedule=EDMSchedule())
    calls: list[bool] = []
    student.denoiser.network.register_forward_hook(lambda m, i, output: calls.append(output.requires_grad))  # type: ignore[union-attr]
    depths = []
    for seed in range(60):
        calls.clear()
        student(Batch(size=2), rng(seed))
        assert calls[-1]
        assert not any(calls[:-1])
        depths.append(len(calls))
    assert min(depths.count(depth) for depth in (1, 2, 3)) >= 8


@pytest.mark.parametrize("times", [[], [0.5, 0.5], [0.3, 0.6], [1.2], [0.5, 0.0]])
def test_times_must_fall(times: list[float]) -> None:
    with pytest.raises(ValueError, match=r"times must (decrease|lie in \(0, 1\])"):
        OneStepUNet((2,), mlp(), times=times)


def test_samples_do_not_depend_on_how_a_batch_is_split() -> None:
    student = OneStepUNet((2,), mlp(3), times=[1.0, 0.5], schedule=EDMSchedule(), population=11)
    batch = Batch(Condition(label=torch.arange(7) % 3), 7)
    whole = student(batch, rng(4))
    joined = Sample.cat([student(part, rng(4)) for part in batch.split(3)])
    torch.testing.assert_close(joined.x, whole.x)
    assert len(joined.population) == len(whole.population) == 11  # type: ignore[arg-type]
    assert set(whole.population_view_index.tolist()) == {0, 1, 2}  # type: ignore[union-attr]


def test_a_population_stands_for_the_generator_in_an_exact_ratio() -> None:
    student = OneStepUNet((2,), mlp(), population=500)
    loss = FDistill(ForwardKL(), ParticleCritic(0.1), ExactRatio())
    distiller = Distiller(student, GaussianMixture(torch.zeros(1, 2), 1.0, schedule=EDMSchedule(0.05, 10.0)), loss)
    step = distiller.evaluate(Batch(size=8), rng=rng())
    assert step.diffused.sample.population.shape == (500, 2)  # type: ignore[union-attr]
    assert not step.diffused.sample.population.requires_grad  # type: ignore[union-attr]
    assert student.eval()(Batch(size=8), rng()).population is None


def unet(**settings: object) -> DiffusersBackbone:
    from diffusers import UNet2DModel

    network = UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=(8, 16), norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=8,
    )  # fmt: skip
    return DiffusersBackbone(network, **settings)  # type: ignore[arg-type]


def test_lora_trains_adapters_over_the_teachers_own_weights() -> None:
    teacher = NetworkTeacher(unet())
    student = OneStepUNet((1, 8, 8), lora=LoRA(rank=2))
    Distiller(student, teacher, VSD(ParticleCritic()))
    trained = {name for name, weight in student.named_parameters() if weight.requires_grad}
    assert trained
    assert all("lora_" in name for name in trained)
    shared = {id(weight) for weight in teacher.parameters()}
    assert all(id(weight) in shared for name, weight in student.named_parameters() if name not in trained)
    x_t, t = 80 * torch.randn(2, 1, 8, 8, generator=rng()), torch.ones(2)
    before = teacher(x_t, t).x0
    torch.testing.assert_close(student(Batch(size=2), rng()).x, before)
    for name, weight in student.named_parameters():
        if name in trained:
            torch.nn.init.normal_(weight)
    assert torch.equal(teacher(x_t, t).x0, before)
    assert (student(Batch(size=2), rng()).x - before).abs().max() > 1e-4


def test_lora_needs_the_teachers_network_and_a_layer_of_that_name() -> None:
    with pytest.raises(ValueError, match="leave network out"):
        OneStepUNet((2,), mlp(), lora=LoRA())
    with pytest.raises(ValueError, match="no layer of Denoiser ends in to_q"):
        Distiller(OneStepUNet((2,), lora=LoRA()), teacher_of(mlp()), VSD(ParticleCritic()))


def gradients(student: OneStepUNet) -> list[Tensor]:
    student.zero_grad()
    student(Batch(size=2), rng()).x.square().sum().backward()
    return [weight.grad.clone() for weight in student.parameters() if weight.grad is not None]


def test_gradient_checkpointing_changes_nothing() -> None:
    plain = OneStepUNet((1, 8, 8), unet(), schedule=EDMSchedule())
    saving = OneStepUNet((1, 8, 8), unet(gradient_checkpointing=True), schedule=EDMSchedule())
    saving.load_state_dict(plain.state_dict())
    assert saving.denoiser.network.network.is_gradient_checkpointing  # type: ignore[union-attr]
    for ours, theirs in zip(gradients(plain), gradients(saving), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_autocast_gives_full_precision_samples(dtype: torch.dtype) -> None:
    student = OneStepUNet((1, 8, 8), unet(), schedule=EDMSchedule()).float()
    exact = student(Batch(size=2), rng()).x
    with torch.autocast("cpu", dtype):
        rough = student(Batch(size=2), rng()).x
    assert rough.dtype == torch.float32
    assert 0 < float((rough - exact).abs().max()) < 0.05 * float(exact.abs().max())


def test_text_conditioned_networks_of_diffusers_can_be_students() -> None:
    from diffusers import DiTTransformer2DModel, UNet2DConditionModel

    text = UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(8, 8), norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=6, attention_head_dim=4,
    )  # fmt: skip
    student = OneStepUNet(
        (4, 8, 8), DiffusersBackbone(text, time="discrete"), "epsilon", schedule=CosineSchedule(), times=[0.9]
    )
    x = student(Batch(Condition(embeddings=torch.randn(2, 5, 6))), rng()).x
    assert x.shape == (2, 4, 8, 8)
    transformer = DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=4, in_channels=4, out_channels=8, num_layers=2, sample_size=8,
        patch_size=2, num_embeds_ada_norm=10,
    )  # fmt: skip
    backbone = DiffusersBackbone(transformer, classes=10, time="flow")
    student = OneStepUNet((4, 8, 8), backbone, "flow", schedule=FlowSchedule())
    x = student(Batch(Condition(label=torch.arange(2))), rng()).x
    assert x.shape == (2, 4, 8, 8)
    assert backbone.width == 8


def steps_of(sampling: str, inputs: str = "simulation", schedule: Schedule | None = None) -> OneStepUNet:
    settings = {"times": [0.9, 0.6, 0.3], "schedule": schedule or FlowSchedule()}
    return OneStepUNet((2,), mlp(), "v", sampling=sampling, inputs=inputs, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("schedule", [FlowSchedule(), CosineSchedule(), EDMSchedule()])
def test_the_steps_of_the_ode_are_ddims(schedule: Schedule) -> None:
    student = steps_of("ode", schedule=schedule).eval()
    sample, denoiser = student(Batch(size=5), rng()), student.denoiser
    assert denoiser is not None
    z = torch.randn(5, 2, generator=rng())
    x_t = schedule.sigma(torch.tensor(0.9)) * z
    for t, s in ((0.9, 0.6), (0.6, 0.3), (0.3, None)):
        x = denoiser(x_t, torch.full((5,), t), None, schedule).x0
        if s is not None:
            (alpha, sigma), (alpha_s, sigma_s) = schedule(torch.tensor(t)), schedule(torch.tensor(s))
            x_t = alpha_s * x + sigma_s * (x_t - alpha * x) / sigma
    torch.testing.assert_close(sample.x, x)
    assert sample.segment is not None
    assert torch.equal(sample.segment.t, torch.full((5,), 0.3))
    assert torch.equal(sample.segment.next_t, torch.zeros(5))
    torch.testing.assert_close(sample.segment.x_t, x_t)
    assert sample.segment.student is denoiser


@pytest.mark.parametrize("sampling", ["consistency", "ode"])
def test_a_segment_is_the_step_that_made_the_sample(sampling: str) -> None:
    student, seen = steps_of(sampling), set()
    for seed in range(12):
        sample = student(Batch(size=4), rng(seed))
        step = sample.segment
        assert step is not None
        assert not step.x_t.requires_grad
        torch.testing.assert_close(step.student(step.x_t, step.t, None, step.schedule).x0, sample.x)
        seen.add((float(step.t[0]), float(step.next_t[0])))
        torch.testing.assert_close(sample[torch.tensor([1])].segment.x_t, step.x_t[1:2])  # type: ignore[union-attr]
    assert {(round(t, 6), round(s, 6)) for t, s in seen} == {(0.9, 0.6), (0.6, 0.3), (0.3, 0.0)}


def test_inputs_from_data_are_noised_data_after_the_first_step() -> None:
    data, student, simulated = torch.randn(4, 2), steps_of("consistency", "data"), steps_of("consistency")
    later = 0
    for seed in range(8):
        step = student(Batch(size=4, data=data), rng(seed)).segment
        usual = simulated(Batch(size=4, data=data), rng(seed)).segment
        assert step is not None
        assert usual is not None
        if float(step.t[0]) > 0.8:
            assert torch.equal(step.x_t, usual.x_t)
            continue
        later += 1
        draws = rng(seed)
        torch.randint(3, (), generator=draws)
        z = torch.randn(4, 2, generator=draws)
        torch.testing.assert_close(step.x_t, (1 - step.t)[:, None] * data + step.t[:, None] * z)
    assert later > 0
    with pytest.raises(ValueError, match=r"OneStepUNet\.inputs: data needs real samples"):
        [student(Batch(size=4), rng(seed)) for seed in range(8)]
    assert torch.isfinite(student.eval()(Batch(size=4), rng()).x).all()


def test_mixed_inputs_are_both() -> None:
    data, student = 100 + torch.randn(4, 2), steps_of("consistency", "mixed")
    steps = [student(Batch(size=4, data=data), rng(seed)).segment for seed in range(30)]
    real = [bool((step.x_t > 10).all()) for step in steps if step is not None and float(step.t[0]) < 0.8]
    assert any(real)
    assert not all(real)


def test_given_noise_replaces_the_drawn_one_and_its_target_goes_along() -> None:
    z, y = torch.randn(6, 2, generator=rng()), torch.randn(6, 2)
    one = OneStepUNet((2,), mlp(), "v", times=[0.9], schedule=FlowSchedule())
    pairs = Batch(size=6, z=z, target=y)
    assert torch.equal(one(pairs, rng(5)).x, one(Batch(size=6), rng()).x)
    assert torch.equal(one(pairs, rng(5)).target, y)  # type: ignore[arg-type]
    parts = [one(part, rng(9)) for part in pairs.split(3)]
    torch.testing.assert_close(torch.cat([part.x for part in parts]), one(pairs, rng()).x)
    assert torch.equal(Sample.cat(parts).target, y)  # type: ignore[arg-type]
    assert torch.equal(Sample.cat(parts).segment.x_t, one(pairs, rng()).segment.x_t)  # type: ignore[union-attr]
    later = [steps_of("consistency")(pairs, rng(seed)) for seed in range(8)]
    assert {each.target is None for each in later} == {float(each.segment.t[0]) < 0.8 for each in later}  # type: ignore[union-attr]
    assert all(steps_of("ode")(pairs, rng(seed)).target is not None for seed in range(4))
    with pytest.raises(ValueError, match=r"Batch.z has shape \(6, 2\)"):
        one(Batch(size=5, z=z), rng())
    with pytest.raises(ValueError, match="give both"):
        Batch(size=6, target=y)
