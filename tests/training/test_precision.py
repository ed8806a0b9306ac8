"""Lightning's true precisions, in every kind of training."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from laws.zoo import discriminator, mlp, mlp_critic
from pytorch_lightning import Callback, Trainer
from torch import Tensor

from scoredistill.critics import LoRACritic, NetworkCritic, ParticleCritic
from scoredistill.diffusion import LogNormalTimesteps
from scoredistill.divergences import JensenShannon
from scoredistill.generators import DMTet, ImageParticles, NeRF, OneStepUNet
from scoredistill.generators.fields import DenseGrid
from scoredistill.losses import SDS, VSD, DMDNormalizer, FDistill, WithGAN
from scoredistill.networks import LoRA, MLPBackbone
from scoredistill.ratios import ExactRatio, TimeBinNormalizer
from scoredistill.rendering.camera import Camera
from scoredistill.teachers import Gallery, GaussianMixture, NetworkTeacher
from scoredistill.training import ConditionDataModule, DenoiserTraining, Distillation, PromptAndCameras
from scoredistill.training.precision import converted
from scoredistill.training.training_module import TrainingModule
from scoredistill.types import Batch, Condition, TextEmbeddings

TYPES = {"64-true": torch.float64, "bf16-true": torch.bfloat16, "16-true": torch.float16}
MEANS = torch.tensor([[1.0, 0.0], [-1.0, 0.5]])


@pytest.fixture(autouse=True)
def _single() -> None:
    """Build objects outside of training in single precision, as in a run."""
    torch.set_default_dtype(torch.float32)


class Data(ConditionDataModule):
    """Labels, and data with separate labels."""

    def batch_at(self, tick: int) -> Batch:
        label = torch.tensor([0, 1, 0, 1])
        return Batch(Condition(label=label), 4, torch.randn(4, 2), label.flip(0))


def labeled() -> MLPBackbone:
    return MLPBackbone((2,), 16, 2, classes=2, label_dropout=0.1)


def teacher() -> GaussianMixture:
    return GaussianMixture(MEANS, 0.4, labels=torch.tensor([0, 1]))


def points() -> tuple[TrainingModule, ConditionDataModule]:
    ratio = FDistill(JensenShannon(), ParticleCritic(), ExactRatio(), [TimeBinNormalizer(2)])
    return Distillation(ImageParticles(torch.randn(4, 2)), teacher(), ratio, ema=0.9), ConditionDataModule()


def trained_critic() -> tuple[TrainingModule, ConditionDataModule]:
    return Distillation(ImageParticles(torch.randn(4, 2)), teacher(), VSD(mlp_critic())), ConditionDataModule(
        labels=[0, 1, 0, 1]
    )


def lora() -> tuple[TrainingModule, ConditionDataModule]:
    critic = LoRACritic(LoRA(2, targets=["layers.1"]), NetworkTeacher(mlp(), prediction="epsilon"))
    return Distillation(ImageParticles(torch.randn(4, 2)), teacher(), VSD(critic)), ConditionDataModule()


def student() -> tuple[TrainingModule, ConditionDataModule]:
    loss = WithGAN(VSD(NetworkCritic(), normalizer=DMDNormalizer()), discriminator())
    # EDM's schedule ends at sigma 80, whose square is finite in float16.
    return Distillation(OneStepUNet((2,), times=[1.0, 0.5]), NetworkTeacher(labeled()), loss, ema=0.9), Data()


def student_of_a_flow() -> tuple[TrainingModule, ConditionDataModule]:
    return Distillation(OneStepUNet((2,), mlp(), "flow"), teacher(), SDS(), timesteps=LogNormalTimesteps()), Data()


def radiance_field() -> tuple[TrainingModule, ConditionDataModule]:
    nerf = NeRF(2, DenseGrid(8, 4), resolution=8, samples=8)
    gallery = Gallery(supersample=1, color_std=0.1)
    return Distillation(nerf, gallery, VSD(ParticleCritic())), PromptAndCameras("a red mug", views=2)


def denoiser() -> tuple[TrainingModule, ConditionDataModule]:
    return DenoiserTraining(labeled(), [2]), Data()


KINDS: list[Callable[[], tuple[TrainingModule, ConditionDataModule]]] = [
    points, trained_critic, lora, student, student_of_a_flow, radiance_field, denoiser,
]  # fmt: skip


class Watch(Callback):
    """Records the batches, and checks that every weight is finite."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Batch, index: int) -> None:
        self.batches.append(batch)
        assert all(bool(torch.isfinite(parameter).all()) for parameter in module.parameters())


def fit(
    model: TrainingModule, data: ConditionDataModule, precision: Any, folder: Any, steps: int = 3
) -> tuple[Watch, list[Any]]:
    watch = Watch()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's own: that there is no loader process, for example
        trainer = Trainer(
            max_steps=steps, accelerator="cpu", precision=precision, callbacks=[watch], logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            default_root_dir=folder,
        )  # fmt: skip
        trainer.fit(model, data)
        predicted = trainer.predict(model, data)
    return watch, predicted or []


def metrics(batch: Batch) -> dict[str, Tensor]:
    """The tensors of a batch by name."""
    condition, camera = batch.condition, None if batch.condition is None else batch.condition.camera
    found = {
        "data": batch.data,
        "data_label": batch.data_label,
        "label": None if condition is None else condition.label,
    }
    found |= {} if camera is None else {"pose": camera.pose, "fov": camera.fov}
    return {name: value for name, value in found.items() if value is not None}


@pytest.mark.parametrize("precision", TYPES)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_training_supports_every_true_precision(kind: Any, precision: str, tmp_path: Any) -> None:
    model, data = kind()
    dtype = TYPES[precision]
    wide = torch.promote_types(dtype, torch.float32)
    watch, predicted = fit(model, data, precision, tmp_path)
    assert len(watch.batches) == 3
    for name, value in metrics(watch.batches[0]).items():
        expected = {"data": dtype, "pose": wide, "fov": wide}.get(name, torch.int64)
        assert value.dtype == expected, name
    weights = [p for p in model.parameters() if p.requires_grad and "lora" not in kind.__name__]
    assert all(parameter.dtype == dtype for parameter in weights)
    assert bool(torch.isfinite(predicted[0]["x"]).all())


@pytest.mark.parametrize("precision", TYPES)
def test_times_and_statistics_are_finer_than_half_precision(precision: str, tmp_path: Any) -> None:
    model, data = points()
    assert isinstance(model, Distillation)
    seen: list[tuple[torch.dtype, torch.dtype]] = []
    evaluate = model.distiller.evaluate

    def watched(*arguments: Any, **settings: Any) -> Any:
        step = evaluate(*arguments, **settings)
        seen.append((step.diffused.t.dtype, step.diffused.x_t.dtype))
        return step

    model.distiller.evaluate = watched  # type: ignore[method-assign]
    fit(model, data, precision, tmp_path, 1)
    dtype = TYPES[precision]
    assert seen == [(torch.promote_types(dtype, torch.float32), dtype)]
    statistics = model.distiller.loss.ratio_normalizers[0]  # type: ignore[union-attr]
    assert statistics.log_mean.dtype == torch.float64
    assert statistics.count.dtype == torch.int64


def test_a_batch_is_converted_field_by_field() -> None:
    camera = Camera(torch.eye(4)[None], torch.ones(1))
    embeddings = TextEmbeddings(torch.ones(1, 2, 3), torch.ones(1, 2), torch.ones(1, 2, dtype=torch.long))
    condition = Condition("a mug", ("none",), torch.ones(1, dtype=torch.long), camera, torch.ones(1, 3), embeddings)
    batch = Batch(condition, 1, torch.ones(1, 2), part=(0, 1))

    def half(value: Any) -> Any:
        return value.half() if isinstance(value, Tensor) and value.is_floating_point() else value

    found = converted(batch, half)
    assert (found.size, found.part, found.data_label) == (1, (0, 1), None)
    assert (found.condition.prompt, found.condition.negative_prompt) == ("a mug", ("none",))
    assert found.data.dtype == found.condition.background.dtype == found.condition.embeddings.tokens.dtype == torch.half
    assert found.condition.embeddings.pooled.dtype == torch.half
    assert found.condition.label.dtype == found.condition.embeddings.mask.dtype == torch.long
    assert found.condition.camera.pose.dtype == torch.float32
    assert batch.data is not None
    assert batch.data.dtype == torch.float32


@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
def test_a_mesh_in_half_precision_is_refused_by_name(precision: str, tmp_path: Any) -> None:
    mesh = DMTet(1, resolution=8)
    model = Distillation(mesh, Gallery(supersample=1), SDS())
    with pytest.raises(
        ValueError, match=r"too imprecise for pixels: set trainer.precision to 32-true, 64-true or bf16-mixed"
    ):
        fit(model, PromptAndCameras("a red mug", views=1), precision, tmp_path)
