"""A pipeline as the teacher, apart from its network's predictions: pictures, prompts, memory, messages."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from teachers.tiny_pipelines import saved, teacher_of

from scoredistill import Distiller
from scoredistill.critics import NetworkCritic
from scoredistill.diffusion import CFG
from scoredistill.generators import ImageParticles, OneStepUNet
from scoredistill.losses import VSD
from scoredistill.rendering.camera import Camera
from scoredistill.teachers import DiffusersTeacher, PromptSettings, Teacher
from scoredistill.types import Batch, Condition, TextEmbeddings

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_networks_predict_in_the_type_of_x_t(dtype: str, tmp_path: Path) -> None:
    exact = teacher_of("sdxl", tmp_path)
    teacher = DiffusersTeacher(exact.source.model, dtype=dtype, resolution=16, prompts=PromptSettings(cache=None))  # type: ignore[arg-type]
    assert teacher.denoiser.network.dtype == getattr(torch, dtype)
    assert teacher.codec.vae.dtype == torch.float32  # its config has force_upcast
    x_t, t = torch.randn(2, 4, 8, 8, dtype=torch.float32), torch.tensor([0.2, 0.9], dtype=torch.float32)
    ours, theirs = (each(x_t, t, Condition(prompt="a mug")).epsilon for each in (teacher, exact))
    assert ours.dtype == torch.float32
    assert float((ours - theirs).norm() / theirs.norm()) < 0.05
    assert not any(weight.requires_grad for weight in teacher.parameters())


def test_the_unconditional_model_of_sdxl_gets_zeros(tmp_path: Path) -> None:
    teacher, x_t, t = teacher_of("sdxl", tmp_path), torch.randn(2, 4, 8, 8), torch.full((2,), 0.5)
    zeros = Condition(embeddings=TextEmbeddings(torch.zeros(2, 16, 16), torch.zeros(2, 8)))
    none, given, empty = teacher.predict_many(x_t, t, [None, zeros, Condition(prompt="")])
    assert torch.equal(none.epsilon, given.epsilon)
    assert (none.epsilon - empty.epsilon).abs().max() > 1e-5


def test_text_encoders_are_loaded_only_for_new_prompts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, read = saved("sd", tmp_path), []
    settings: dict[str, Any] = {"resolution": 16, "prompts": PromptSettings(cache=str(tmp_path / "cache"))}
    whole = "scoredistill.teachers.diffusers.loading.Source.read"
    original = DiffusersTeacher(model, **settings).source.read.__func__  # type: ignore[attr-defined]
    monkeypatch.setattr(whole, lambda self, part, *rest: read.append(part) or original(self, part, *rest))
    asked = Condition(prompt="a mug")
    first = DiffusersTeacher(model, **settings)
    assert "text_encoder" not in read
    embeddings = first.encode_prompt(asked, 3)
    assert read.count("text_encoder") == 1
    assert first.prompts.encoder._pipeline is None  # type: ignore[attr-defined]
    again = DiffusersTeacher(model, **settings).encode_prompt(asked, 3)
    assert read.count("text_encoder") == 1
    torch.testing.assert_close(again.embeddings.tokens, embeddings.embeddings.tokens)  # type: ignore[union-attr]
    assert embeddings.embeddings.tokens.shape == (3, 16, 8)  # type: ignore[union-attr]


def test_the_key_names_the_weights_and_their_precision(tmp_path: Path) -> None:
    teacher = teacher_of("sd", tmp_path)
    copy = shutil.copytree(teacher.source.model, tmp_path / "copy")
    keys = [DiffusersTeacher(model).prompts.encoder.key for model in (teacher.source.model, str(copy))]
    assert keys[0] == keys[1]  # the same files
    weights = copy / "text_encoder" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    others = [DiffusersTeacher(str(copy)), DiffusersTeacher(str(copy), dtype="bfloat16")]
    assert len({keys[0], *(each.prompts.encoder.key for each in others)}) == 3


@pytest.mark.parametrize(("family", "cut"), [("sd", 1), ("sdxl", 2), ("sd3", 2), ("pixart-alpha", 0)])
def test_each_tokenizer_reports_truncated_text(family: str, cut: int, tmp_path: Path) -> None:
    encoder = teacher_of(family, tmp_path).prompts.encoder
    assert encoder.truncations("a mug") == []
    found = encoder.truncations("abcdefghijklmnopqrst")  # a token a letter, of which CLIP reads 14 here
    assert found == [("abcdefghijklmn", "opqrst")] * cut
    if family == "pixart-alpha":
        assert len(encoder.truncations("abc" * 50)) == 1  # 120 tokens and one that ends them


def test_each_row_is_seen_from_its_own_camera(tmp_path: Path) -> None:
    teacher, x_t, t = (
        teacher_of("multi-view", tmp_path),
        torch.randn(1, 4, 8, 8).repeat(3, 1, 1, 1),
        torch.full((3,), 0.5),
    )
    around = torch.tensor([0.0, 0.0, 120.0])
    camera = Camera.orbit(around, torch.zeros(3), torch.full((3,), 2.0), torch.full((3,), 40.0))
    epsilon = CFG(3.0)(teacher, x_t, t, teacher.encode_prompt(Condition(prompt="a mug", camera=camera), 3)).epsilon
    torch.testing.assert_close(epsilon[0], epsilon[1])
    assert (epsilon[0] - epsilon[2]).abs().max() > 1e-4
    unet = teacher.denoiser.network.network
    embeddings = teacher.encode_prompt(Condition(prompt="a mug"), 3).embeddings  # type: ignore[union-attr]
    poses = camera.pose.flatten(1).float()
    theirs = unet(x_t.float(), 499, embeddings.tokens, class_labels=poses).sample  # type: ignore[union-attr]
    ours = teacher(x_t, t, Condition(embeddings=embeddings, camera=camera)).value
    torch.testing.assert_close(ours, theirs.double(), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="the condition has no camera"):
        teacher(x_t, t, None)


@pytest.mark.parametrize("family", ["sd-v", "sdxl", "sd3", "flux", "pixart-alpha", "if"])
def test_critics_and_students_start_from_its_network(family: str, tmp_path: Path) -> None:
    teacher = teacher_of(family, tmp_path)
    x = teacher.encode(torch.rand(2, 3, 16, 16))
    particles = ImageParticles(x)
    distiller = Distiller(particles, teacher, VSD(NetworkCritic()))
    condition, t = Condition(prompt="a mug"), torch.tensor([0.3, 0.6])
    g = distiller.gradient(x, t=t, epsilon=torch.randn_like(x), condition=condition)
    torch.testing.assert_close(g, torch.zeros_like(g), rtol=0, atol=1e-6)  # the critic is the teacher still
    distiller.critic_loss(Batch(condition), rng=torch.Generator().manual_seed(0)).backward()
    student = OneStepUNet(x.shape[1:])
    student.bind(teacher)
    assert all(weight.requires_grad for weight in student.parameters())
    made = student(Batch(teacher.encode_prompt(condition, 2), 2), torch.Generator().manual_seed(0)).x
    assert made.shape == x.shape
    assert not any(weight.requires_grad for weight in teacher.parameters())


def test_a_teacher_distils_pictures(tmp_path: Path) -> None:
    teacher = teacher_of("sd", tmp_path)
    particles = ImageParticles(torch.rand(2, 3, 16, 16))
    Distiller(particles, teacher, VSD(NetworkCritic()), guidance=CFG(7.5)).generator_loss(
        Batch(Condition(prompt="a mug")), rng=torch.Generator().manual_seed(0)
    ).backward()
    (weights,) = particles.parameters()
    assert weights.grad is not None
    assert weights.grad.abs().sum() > 0


def test_an_attention_backend_gives_the_same_answer(tmp_path: Path) -> None:
    plain = teacher_of("flux", tmp_path)
    chosen = DiffusersTeacher(plain.source.model, attention="_native_math", prompts=PromptSettings(cache=None))
    x_t, t = torch.randn(2, 16, 8, 8), torch.tensor([0.2, 0.7])
    ours, theirs = (each(x_t, t, Condition(prompt="a mug")).flow for each in (chosen, plain))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_numbers_of_rows_must_match(tmp_path: Path) -> None:
    teacher, x_t, t = teacher_of("sd", tmp_path), torch.randn(2, 4, 8, 8), torch.full((2,), 0.5)
    with pytest.raises(ValueError, match="3 rows for 2 samples"):
        teacher(x_t, t, Condition(embeddings=torch.zeros(3, 16, 8)))
    with pytest.raises(ValueError, match=r"encodes pictures \(B, 3, H, W\) or latents of 4 channels"):
        teacher.encode(torch.zeros(2, 5, 8, 8))


def test_stable_diffusion_3_may_come_without_t5(tmp_path: Path) -> None:
    teacher = teacher_of("sd3", tmp_path)
    index = Path(teacher.source.model) / "model_index.json"
    none = {"text_encoder_3": [None, None], "tokenizer_3": [None, None]}
    index.write_text(json.dumps(json.loads(index.read_text()) | none))
    without = DiffusersTeacher(teacher.source.model, resolution=16, prompts=PromptSettings(cache=None))
    tokens = [each.prompts.texts(["a mug"]).tokens for each in (teacher, without)]
    assert tokens[0].shape == tokens[1].shape
    torch.testing.assert_close(tokens[0][:, :16], tokens[1][:, :16])  # CLIP's
    assert not tokens[1][:, 16:].any()


@pytest.mark.slow
def test_compiling_keeps_the_networks_names(tmp_path: Path) -> None:
    teacher = teacher_of("sd", tmp_path, compile=True)
    network = teacher.denoiser.network.network
    assert network._compiled_call_impl is not None
    assert not any("_orig_mod" in name for name in network.state_dict())
    copy = NetworkCritic()
    copy.bind(teacher)  # a copy is made of what was compiled


def test_a_recipe_can_name_it(tmp_path: Path) -> None:
    from jsonargparse import ArgumentParser

    recipe = {
        "class_path": "scoredistill.teachers.DiffusersTeacher",
        "init_args": {"model": saved("sd", tmp_path), "resolution": 16, "offload": True, "prompts": {"cache": None}},
    }
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--teacher", type=Teacher)
    teacher = parser.instantiate_classes(parser.parse_object({"teacher": recipe})).teacher
    assert isinstance(teacher, DiffusersTeacher)
    assert teacher.encode(torch.zeros(1, 3, 16, 16)).shape == (1, 4, 8, 8)
