"""Whether NeRFs show their prompt, and their chroma and diversity."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from scoredistill.evaluation import PromptClassifier
from scoredistill.generators import ImageParticles
from scoredistill.generators.fields import DenseGrid, LearnedBackground
from scoredistill.generators.nerf import NeRF
from scoredistill.losses import SDS
from scoredistill.rendering.camera import Camera
from scoredistill.teachers import Gallery
from scoredistill.training import ConditionDataModule, Distillation, PromptAndCameras
from scoredistill.training.callbacks import PromptFidelity
from scoredistill.training.callbacks.pictures import Views, gallery_views, particle_views

CANDIDATES = ["a blue donut", "a snowman"]
DATA = PromptAndCameras("a blue donut", evaluation_views=4)


@pytest.fixture(scope="module")
def classifier() -> PromptClassifier:
    return PromptClassifier(CANDIDATES, resolution=16, pictures=40, steps=80).fit()


@pytest.fixture
def callback(classifier: PromptClassifier, monkeypatch: pytest.MonkeyPatch) -> PromptFidelity:
    monkeypatch.setattr(PromptClassifier, "cached", lambda folder, prompts: classifier)
    return PromptFidelity(CANDIDATES, resolution=24)


def nerf(particles: int = 2) -> NeRF:
    return NeRF(particles, DenseGrid(8), resolution=16, samples=16)


def test_the_gallerys_own_variants_have_the_gallerys_metrics(
    callback: PromptFidelity, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ideal(generator: NeRF, teacher: object, camera: Camera, resolution: int, background: Tensor) -> Views:
        torch.testing.assert_close(background, torch.tensor([0.7, 0.7, 0.7]))
        return gallery_views("a blue donut", camera, resolution)

    monkeypatch.setattr("scoredistill.training.callbacks.fidelity.particle_views", ideal)
    metrics = callback.evaluate(Distillation(nerf(), Gallery(), SDS()), DATA, final=True)
    assert metrics["recognized"] > 0.8
    assert metrics["recognizer_accuracy"] > 0.8
    for name in ("chroma", "foreground", "diversity", "diversity_features"):
        assert metrics[name] == metrics[f"{name}_gallery"] > 0
    assert [name for name in metrics if name.startswith("recognized/")] == [
        f"recognized/particle_{i}" for i in range(4)
    ]


def test_particles_are_classified(callback: PromptFidelity) -> None:
    metrics = callback.evaluate(Distillation(nerf(), Gallery(), SDS()), DATA, final=False)
    assert 0 <= metrics["recognized"] <= 1
    assert 0 < metrics["foreground"] < 1
    assert metrics["diversity"] > 0


def test_one_particle_has_no_diversity_and_an_empty_one_no_chroma(callback: PromptFidelity) -> None:
    empty = nerf(1)
    with torch.no_grad():
        empty.field.encoding.grid[..., 0] = -50.0
    with pytest.warns(UserWarning, match="chroma is left out: the particles are empty"):
        metrics = callback.evaluate(Distillation(empty, Gallery(), SDS()), DATA, final=True)
    assert metrics["foreground"] == 0
    assert not {"chroma", "diversity", "diversity_features"} & metrics.keys()
    assert {"chroma_gallery", "diversity_gallery"} <= metrics.keys()


class Codec(nn.Module):
    """Latents of four channels as pictures twice as large."""

    def decode(self, x: Tensor) -> Tensor:
        return x[:, :3].repeat_interleave(2, -1).repeat_interleave(2, -2)


def test_scenes_of_latents_are_decoded() -> None:
    scenes = NeRF(2, DenseGrid(8, channels=5), background=LearnedBackground(), resolution=8, samples=8, latents=4)
    camera = DATA.evaluation_cameras()
    pictures, opacity = particle_views(scenes, Codec(), camera, 16, torch.zeros(3))  # type: ignore[arg-type]
    assert (pictures.shape, opacity.shape) == ((2, 4, 3, 16, 16), (2, 4, 16, 16))
    rgb = scenes.render(camera, 8, 8).rgb
    assert rgb.shape == (2, 4, 4, 8, 8)
    torch.testing.assert_close(pictures[1, 2, :, ::2, ::2], rgb[1, 2, :3].clamp(-1, 1))
    assert scenes.mesh(0, 16).colors is None


def test_generators_that_cannot_be_evaluated_are_refused(callback: PromptFidelity) -> None:
    module = SimpleNamespace(eval_generator=ImageParticles(torch.zeros(1, 3, 8, 8)))
    with pytest.raises(TypeError, match="PromptFidelity needs a generator of 3D scenes"):
        callback.evaluate(module, ConditionDataModule(), final=True)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="add the prompt 'a rocket' to candidates"):
        callback.evaluate(Distillation(nerf(1), Gallery(), SDS()), PromptAndCameras("a rocket"), final=True)
    with pytest.raises(ValueError, match="candidates: expected a list of two"):
        PromptFidelity(["a rocket"])
