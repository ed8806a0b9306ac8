"""The critic that is a LoRA over the teacher's own weights."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from critics.lora_networks import Batched, cameras, condition, diffused, flow_teacher, text_teacher, unet
from laws.zoo import training_error, training_loss
from torch import Tensor, nn

from scoredistill import Distiller
from scoredistill.critics import LoRACritic, NetworkCritic, reuse_forward
from scoredistill.diffusion import CFG, CosineSchedule, EDMSchedule, LinearSchedule
from scoredistill.generators import ImageParticles
from scoredistill.losses import VSD
from scoredistill.networks import DiffusersBackbone, LoRA, MLPBackbone
from scoredistill.networks.embedding import CameraConditioned
from scoredistill.teachers import GaussianMixture, NetworkTeacher, Teacher
from scoredistill.types import Condition, Diffused, Sample, TextEmbeddings


def bound(critic: LoRACritic, teacher: Teacher | None = None) -> LoRACritic:
    Distiller(ImageParticles(torch.zeros(2, 2, 8, 8)), teacher or text_teacher(), VSD(critic))
    return critic


def awake(critic: LoRACritic, seed: int = 0) -> LoRACritic:
    """The critic with nonzero adapters and camera embeddings."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        for weight in trained(critic).values():
            nn.init.normal_(weight, std=0.3)
    return critic


def trained(critic: nn.Module) -> dict[str, nn.Parameter]:
    return {name: weight for name, weight in critic.named_parameters() if weight.requires_grad}


def answer(critic: LoRACritic, at: Diffused, asked: Condition | None = None) -> Tensor:
    with torch.no_grad():
        return critic.eval()(at.under(asked or at.condition)).epsilon


def test_it_begins_as_the_teacher_and_vsd_is_the_guidance_alone() -> None:
    teacher, critic = text_teacher(), LoRACritic(camera=True)
    distiller = Distiller(ImageParticles(torch.zeros(2, 2, 8, 8)), teacher, VSD(critic), CFG(7.5))
    at = diffused(teacher.schedule)
    critic.train()
    with torch.no_grad():
        assert torch.equal(critic(at).value, teacher(at.x_t, at.t, at.condition).value)
        cond, uncond = (p.epsilon for p in teacher.predict_many(at.x_t, at.t, [at.condition, None]))
    gradient = distiller.loss.gradient(at, teacher, distiller.guidance)
    torch.testing.assert_close(gradient.target.epsilon - gradient.baseline, 6.5 * (cond - uncond))
    assert not distiller.loss.gradient(at, teacher).g.any()


@pytest.mark.parametrize("particles", [None, 3])
def test_weights_and_buffers_are_the_teachers_own_and_never_change(particles: int | None) -> None:
    teacher = text_teacher()
    teacher.denoiser.register_buffer("kept", torch.ones(3))
    critic, at = LoRACritic(camera=True, particles=particles), diffused(teacher.schedule)
    before = teacher(at.x_t, at.t, at.condition).value
    bound(critic, teacher)
    shared = {id(value) for value in (*teacher.parameters(), *teacher.buffers())}
    own = {name for name, value in critic.named_parameters() if id(value) not in shared}
    assert own == set(trained(critic))
    assert all("lora_" in name or ".mlp." in name for name in own)
    assert all(id(buffer) in shared for buffer in critic.buffers())
    weights = {name: value.clone() for name, value in teacher.state_dict().items()}
    optimizer = torch.optim.Adam(trained(critic).values(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        training_loss(critic, at).backward()
        optimizer.step()
    assert (answer(critic, at) - before).abs().max() > 1e-2
    assert torch.equal(teacher(at.x_t, at.t, at.condition).value, before)
    assert all(torch.equal(value, weights[name]) for name, value in teacher.state_dict().items())


@pytest.mark.parametrize("transformer", [False, True], ids=["UNet", "SD3"])
def test_training_reaches_adapters_and_cameras_alone_and_lowers_the_error(transformer: bool) -> None:
    teacher = flow_teacher() if transformer else text_teacher()
    critic = bound(LoRACritic(camera=True, camera_dropout=0.0), teacher)
    at = diffused(teacher.schedule, pooled=transformer)
    at.sample.x.requires_grad_()
    nn.init.normal_(critic.denoisers[0].network.mlp[2].weight, std=0.1)  # type: ignore[union-attr,operator,index]
    first, before = training_loss(critic, at), answer(critic, at)
    training_loss(critic.train(), at).backward()
    assert {name for name, weight in critic.named_parameters() if weight.grad is not None} == set(trained(critic))
    assert all(bool(w.grad.any()) for name, w in trained(critic).items() if "lora_A" not in name)  # type: ignore[union-attr]
    assert at.sample.x.grad is None
    optimizer = torch.optim.Adam(trained(critic).values(), lr=0.02)
    for _ in range(30):
        optimizer.zero_grad()
        training_loss(critic, at).backward()
        optimizer.step()
    assert float(training_loss(critic, at).detach()) < 0.97 * float(first.detach())
    assert (answer(critic, at) - before).abs().max() > 0.02


@pytest.mark.parametrize("own", [LinearSchedule(1e-4, 0.02, scaled=False), CosineSchedule()])
def test_a_v_base_with_an_epsilon_teacher_gets_the_right_noise_level(
    own: LinearSchedule | CosineSchedule,
) -> None:
    teacher, base = text_teacher(), text_teacher("v", own)
    critic = bound(LoRACritic(base=base), teacher)
    at = diffused(teacher.schedule)
    same = own.t_at_log_snr(teacher.schedule.log_snr(at.t))
    assert (same - at.t).abs().max() > 0.02
    theirs = base(at.x_t, same, at.condition)
    with torch.no_grad():
        ours = critic(at)
    assert ours.kind == "v"
    torch.testing.assert_close(ours.epsilon, theirs.epsilon)
    assert (ours.epsilon - teacher(at.x_t, at.t, at.condition).epsilon).abs().max() > 0.1
    assert not {id(weight) for weight in critic.parameters()} & {id(weight) for weight in teacher.parameters()}
    target = teacher.schedule.alpha(at.t).view(-1, 1, 1, 1) * at.epsilon
    target = target - teacher.schedule.sigma(at.t).view(-1, 1, 1, 1) * at.sample.x
    torch.testing.assert_close(training_loss(critic, at), (ours.v - target).square().mean())


def test_a_base_with_another_input_scale_is_refused() -> None:
    teacher = NetworkTeacher(MLPBackbone((2, 8, 8)), schedule=EDMSchedule())
    with pytest.raises(ValueError, match="choose a base of the teacher's family"):
        bound(LoRACritic(base=text_teacher("v")), teacher)
    bound(LoRACritic(base=text_teacher("epsilon")), teacher)


@pytest.mark.parametrize("transformer", [False, True], ids=["UNet", "SD3"])
def test_each_row_depends_on_its_own_camera(transformer: bool) -> None:
    teacher = flow_teacher() if transformer else text_teacher()
    critic = awake(bound(LoRACritic(camera=True), teacher))
    at = diffused(teacher.schedule, pooled=transformer)
    moved = replace(at.condition, camera=cameras(4)[torch.tensor([0, 2, 2, 3])])  # type: ignore[type-var]
    change = (answer(critic, at) - answer(critic, at, moved)).abs().amax((1, 2, 3))
    assert (change > 1e-5).tolist() == [False, True, False, False]
    assert float(change[[0, 2, 3]].max()) < 1e-12


@pytest.mark.parametrize("make", [lambda: LoRACritic(camera=True), NetworkCritic], ids=["LoRA", "network"])
def test_the_critic_trains_while_its_teacher_stays_in_evaluation_mode(make) -> None:  # type: ignore[no-untyped-def]
    critic = bound(make(), text_teacher())
    assert all(module.training for module in critic.modules())


def test_cameras_are_hidden_at_their_rate_and_only_in_training() -> None:
    network = bound(LoRACritic(camera=True, camera_dropout=0.25)).denoisers[0].network
    assert isinstance(network, CameraConditioned)
    nn.init.ones_(network.mlp[2].bias)  # type: ignore[arg-type]
    n = 2000
    asked = Condition(camera=cameras(1)[torch.zeros(n, dtype=torch.long)])
    hidden = (network.train().embedding(asked) == 0).all(1)
    assert float(hidden.double().mean()) == pytest.approx(0.25, abs=3 * (0.25 * 0.75 / n) ** 0.5)
    assert not (network.eval().embedding(asked) == 0).any()


def test_each_particle_has_its_own_adapter() -> None:
    teacher = text_teacher()
    critic, at = awake(bound(LoRACritic(camera=True, particles=3), teacher)), diffused(teacher.schedule)
    one = bound(LoRACritic(camera=True), teacher)
    for particle in (0, 1):
        one.denoisers[0].load_state_dict(critic.denoisers[particle].state_dict())
        rows = at.sample.particle == particle
        torch.testing.assert_close(answer(critic, at)[rows], answer(one, at)[rows])
    training_error(critic.train(), at)[at.sample.particle == 1].sum().backward()
    reached = [any(w.grad is not None and bool(w.grad.any()) for w in each.parameters()) for each in critic.denoisers]
    assert reached == [False, True, False]


class Reader(Batched):
    """A teacher whose embeddings are a prompt's length and, with cameras, their heights."""

    asked: list[tuple[bool, bool]]

    def encode_prompt(self, condition: Condition | None, rows: int | None) -> Condition | None:
        if condition is None or condition.embeddings is not None:
            return condition
        self.asked.append((condition.camera is not None, condition.embeddings is not None))
        height = 0 if condition.camera is None else condition.camera.pose[0, 1, 3]
        tokens = torch.full((rows or 1, 5, 6), 1.0) * len(str(condition.prompt)) + height
        return replace(condition, embeddings=TextEmbeddings(tokens))


def reader() -> Reader:
    backbone = DiffusersBackbone(unet(), time="discrete")
    teacher = Reader(backbone, prediction="epsilon", schedule=LinearSchedule()).eval()
    teacher.asked = []
    return teacher


@pytest.mark.parametrize(("plain", "other"), [(True, False), (False, False), (True, True), (False, True)])
def test_prompts_are_encoded_without_view_words_by_the_base(plain: bool, other: bool) -> None:
    teacher, base = reader(), reader()
    critic = bound(LoRACritic(base=base if other else None, camera=True, plain_text=plain), teacher)
    asked = teacher.encode_prompt(Condition("a mug", camera=cameras(4)), 4)
    owner = base if other else teacher
    teacher.asked, base.asked = [], []
    at = diffused(teacher.schedule)
    ours = answer(critic, at, asked)
    assert owner.asked == ([(not plain, False)] if plain or other else [])
    text = replace(asked, embeddings=None, camera=None if plain else asked.camera)  # type: ignore[type-var,union-attr]
    read = owner.encode_prompt(text, 4)
    with torch.no_grad():
        theirs = owner.denoiser(at.x_t, at.t, read, owner.schedule).epsilon
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("transformer", [False, True], ids=["UNet", "SD3"])
def test_files_are_diffusers_own(transformer: bool, tmp_path: Path) -> None:
    make = flow_teacher if transformer else text_teacher
    teacher = make()
    critic = awake(bound(LoRACritic(LoRA(rank=3, scale=6.0), camera=True), teacher))
    at = diffused(teacher.schedule, pooled=transformer)
    critic.save(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"pytorch_lora_weights.safetensors", "camera_embedding.safetensors"}
    again = bound(LoRACritic(LoRA(rank=3, scale=6.0), camera=True), teacher)
    again.load(tmp_path)
    assert torch.equal(answer(again, at), answer(critic, at))
    plain = bound(LoRACritic(LoRA(rank=3, scale=6.0)), teacher)
    for name, weight in trained(plain).items():
        weight.data = dict(critic.named_parameters())[name.replace("network.", "network.backbone.", 1)].data
    other = make()
    other.load_state_dict(teacher.state_dict())
    network = other.denoiser.network.network
    prefix = "transformer" if transformer else "unet"
    network.load_lora_adapter(tmp_path, prefix=prefix, use_safetensors=True)  # type: ignore[operator,union-attr]
    with torch.no_grad():
        theirs = other(at.x_t, at.t, at.condition).epsilon
    torch.testing.assert_close(theirs, answer(plain, at))


def test_a_stock_pipeline_loads_the_file(tmp_path: Path) -> None:
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    teacher = text_teacher()
    critic = awake(bound(LoRACritic(), teacher))
    critic.save(tmp_path)
    network = unet()
    network.load_state_dict(teacher.denoiser.network.network.state_dict())  # type: ignore[operator,union-attr]
    unused = {"vae": None, "text_encoder": None, "tokenizer": None, "safety_checker": None, "feature_extractor": None}
    scheduler = DDIMScheduler(clip_sample=False, steps_offset=1)
    pipeline = StableDiffusionPipeline(unet=network, scheduler=scheduler, requires_safety_checker=False, **unused)
    pipeline.load_lora_weights(tmp_path)
    at = diffused(teacher.schedule)
    backbone = DiffusersBackbone(pipeline.unet, time="discrete")
    with torch.no_grad():
        theirs = NetworkTeacher(backbone, prediction="epsilon", schedule=teacher.schedule)(at.x_t, at.t, at.condition)
    torch.testing.assert_close(theirs.epsilon, answer(critic, at))


def test_adapters_of_several_particles_have_folders_of_their_own(tmp_path: Path) -> None:
    teacher = text_teacher()
    critic, again = (bound(LoRACritic(particles=2), teacher) for _ in range(2))
    awake(critic).save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]
    again.load(tmp_path)
    at = diffused(teacher.schedule)
    assert torch.equal(answer(again, at), answer(critic, at))


def test_mismatched_files_are_clear_errors(tmp_path: Path) -> None:
    critic = bound(LoRACritic())
    with pytest.raises(ValueError, match=r"no pytorch_lora_weights.safetensors in .*: use the folder"):
        critic.load(tmp_path)
    critic.save(tmp_path)
    with pytest.raises(
        ValueError, match=r"lora_A.weight is \(4, 8\) in the file and \(2, 8\) in the network; check rank"
    ):
        bound(LoRACritic(LoRA(rank=2))).load(tmp_path)
    with pytest.raises(ValueError, match=r"no camera_embedding\.safetensors"):
        bound(LoRACritic(camera=True)).load(tmp_path)
    plain = LoRACritic(LoRA(targets=("out",)))
    bound(plain, NetworkTeacher(MLPBackbone((2, 8, 8))))
    with pytest.raises(ValueError, match="has no model of diffusers"):
        plain.save(tmp_path)


def test_invalid_settings_are_clear_errors() -> None:
    at = diffused(LinearSchedule())
    with pytest.raises(ValueError, match="particles must be at least 1"):
        LoRACritic(particles=0)
    with pytest.raises(ValueError, match="camera_dropout must lie in"):
        LoRACritic(camera_dropout=1.5)
    with pytest.raises(ValueError, match="has no network yet"):
        LoRACritic()(at)
    with pytest.raises(ValueError, match="has no network to save or load yet"):
        LoRACritic().save("nowhere")
    with pytest.raises(ValueError, match="GaussianMixture has no network to initialize the critic"):
        bound(LoRACritic(), GaussianMixture(torch.zeros(1, 2, 8, 8), 1.0))
    with pytest.raises(ValueError, match="no layer of Denoiser ends in nothing"):
        bound(LoRACritic(LoRA(targets=("nothing",))))
    with pytest.raises(ValueError, match="MLPBackbone's network has none of time_embedding"):
        bound(LoRACritic(LoRA(targets=("out",)), camera=True), NetworkTeacher(MLPBackbone((2, 8, 8))))
    seeing, separate = bound(LoRACritic(camera=True, camera_dropout=0.0)), bound(LoRACritic(particles=1))
    with pytest.raises(ValueError, match="the batch has no cameras"):
        answer(seeing, at, Condition(embeddings=condition().embeddings))
    with pytest.raises(ValueError, match="the samples have no particle index"):
        separate(replace(at, sample=Sample(at.sample.x, at.condition)))
    with pytest.raises(ValueError, match="particles: 1, the generator at least 2"):
        answer(separate, at)
    with pytest.raises(ValueError, match="one network per particle, the discriminator needs one"):
        bound(LoRACritic(particles=2)).denoiser_for("the discriminator")


def gradients(critic: LoRACritic, at: Diffused) -> list[Tensor]:
    critic.zero_grad()
    training_loss(critic, at).backward()
    return [weight.grad.clone() for weight in trained(critic).values() if weight.grad is not None]


def test_gradient_checkpointing_changes_nothing() -> None:
    plain, saving = text_teacher(), text_teacher(checkpointing=True)
    saving.load_state_dict(plain.state_dict())
    at = diffused(plain.schedule)
    found = []
    for teacher in (plain, saving):
        critic = awake(bound(LoRACritic(camera=True, camera_dropout=0.0), teacher)).train()
        found.append(gradients(critic, at))
        with reuse_forward(critic):
            answer(critic, at)
            found.append(gradients(critic, at))
    assert all(bool(gradient.any()) for gradient in found[0])
    for other in found[1:]:
        for ours, theirs in zip(found[0], other, strict=True):
            torch.testing.assert_close(ours, theirs)


def test_half_precision_keeps_adapters_in_single_precision() -> None:
    teacher = text_teacher()
    teacher.denoiser.bfloat16()
    critic = bound(LoRACritic(camera=True), teacher)
    kinds = {"lora_" in name: weight.dtype for name, weight in critic.named_parameters() if ".mlp." not in name}
    assert kinds == {True: torch.float32, False: torch.bfloat16}
    at = diffused(teacher.schedule)
    assert answer(critic, at).dtype == torch.float64
    assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients(critic, at))


def test_autocast_gives_full_precision_predictions() -> None:
    teacher = text_teacher().float()
    critic = awake(bound(LoRACritic(camera=True), teacher).float())
    at = diffused(teacher.schedule)
    at = Diffused(*(value.float() for value in (at.x_t, at.t, at.epsilon)), at.sample, at.schedule)
    exact = answer(critic, at)
    with torch.autocast("cpu", torch.bfloat16):
        rough = answer(critic, at)
    assert rough.dtype == torch.float32
    assert 0 < float((rough - exact).abs().max()) < 0.05 * float(exact.abs().max())


@pytest.mark.parametrize("kind", ["LoRA", "network"])
def test_a_shared_call_has_the_gradient_of_a_separate_one(kind: str) -> None:
    teacher = text_teacher(dropout=0.3)
    critic = LoRACritic(camera=True) if kind == "LoRA" else NetworkCritic()
    Distiller(ImageParticles(torch.zeros(2, 2, 8, 8)), teacher, VSD(critic))
    if isinstance(critic, LoRACritic):
        awake(critic)
    at, calls = diffused(teacher.schedule), []
    network = critic.denoiser_for("the test").network
    network.register_forward_hook(lambda *call: calls.append(1))
    separate = gradients(critic.eval(), at)  # type: ignore[arg-type]
    loss, calls[:] = VSD(critic), []
    critic.train()
    with reuse_forward(critic):
        gradient = loss.gradient(at, teacher)
        shared = gradients(critic, at)  # type: ignore[arg-type]
    assert len(calls) == 1
    assert not gradient.baseline.requires_grad
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(shared, separate, strict=True))
    assert network.training
    gradients(critic, at)  # type: ignore[arg-type]
    assert len(calls) == 2


def test_no_cached_prediction_is_stale() -> None:
    teacher = text_teacher()
    critic, at, calls = awake(bound(LoRACritic(), teacher)), diffused(teacher.schedule), []
    critic.denoisers[0].register_forward_hook(lambda *call: calls.append(1))
    other = diffused(teacher.schedule, seed=5)
    with reuse_forward(critic):
        ask = [at, at, other, at, at.under(replace(at.condition, prompt="a")), at]  # type: ignore[type-var]
        for each in ask:
            training_error(critic, each)
        assert len(calls) == 5
        with torch.no_grad():
            next(iter(trained(critic).values())).mul_(2)
        changed = training_error(critic, at)
        assert len(calls) == 6
    torch.testing.assert_close(changed, training_error(critic, at))


def test_a_critic_that_drops_cameras_answers_without_one_in_evaluation() -> None:
    """As ESD asks it: the term of the camera is zero, as for a dropped camera."""
    critic = awake(bound(LoRACritic(camera=True))).eval()
    at = diffused(LinearSchedule())
    blind = Condition(embeddings=condition().embeddings)
    with torch.no_grad():
        without = answer(critic, at, blind)
        assert (answer(critic, at, condition()) - without).abs().max() > 1e-6
        for denoiser in critic.denoisers:
            for parameter in denoiser.network.mlp.parameters():
                parameter.zero_()
        torch.testing.assert_close(answer(critic, at, condition()), without)
    with pytest.raises(ValueError, match="set camera_dropout above 0"):
        critic.train()(at.under(blind))
