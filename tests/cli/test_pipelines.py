"""Students as pipelines of diffusers, against the students' own samples of the same noise."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from teachers.tiny_pipelines import saved
from torch import Tensor

from scoredistill.cli.errors import UsageError
from scoredistill.cli.pipelines import save_pipeline
from scoredistill.diffusion import CosineSchedule, EDMSchedule, FlowSchedule, LinearSchedule
from scoredistill.generators import OneStepUNet
from scoredistill.networks import DiffusersBackbone, LoRA, MLPBackbone
from scoredistill.networks.text_backbones import pack
from scoredistill.teachers import DiffusersTeacher, PromptSettings
from scoredistill.teachers.diffusers.loading import Source
from scoredistill.types import Batch, Condition, TextEmbeddings

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")


@pytest.fixture(autouse=True)
def _float32() -> None:
    torch.set_default_dtype(torch.float32)  # what pipelines run in


def unet(rows: int | None = 3) -> DiffusersBackbone:
    from diffusers import UNet2DModel

    network = UNet2DModel(
        sample_size=8, in_channels=3, out_channels=3, layers_per_block=1, block_out_channels=(8, 8), norm_num_groups=4,
        down_block_types=("DownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D"),
        add_attention=False, num_class_embeds=rows,
    )  # fmt: skip
    return DiffusersBackbone(network, classes=rows)


def stock(folder: Path) -> Any:
    from diffusers import DiffusionPipeline

    pipeline = DiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.parametrize("rows", [3, None])
@pytest.mark.parametrize("times", [[0.5], [1.0, 0.4], [1.0, 0.8, 0.5, 0.2]], ids=len)
def test_a_stock_pipeline_takes_the_students_steps(rows: int | None, times: list[float], tmp_path: Path) -> None:
    from diffusers import ConsistencyModelPipeline

    student = OneStepUNet((3, 8, 8), unet(rows), sigma_data=0.7, times=times, schedule=EDMSchedule()).eval()
    call = save_pipeline(student, tmp_path / "pipeline")
    assert f"pipeline({call})" in (tmp_path / "pipeline" / "README.md").read_text()
    pipeline = stock(tmp_path / "pipeline")
    assert isinstance(pipeline, ConsistencyModelPipeline)
    label = None if rows is None else torch.arange(3)
    steps = eval(f"dict({call})")
    rng = torch.Generator().manual_seed(0)
    theirs = pipeline(3, class_labels=label, generator=rng, output_type="np", **steps).images
    with torch.no_grad():
        condition = None if label is None else Condition(label=label)
        ours = student(Batch(condition, 3), torch.Generator().manual_seed(0)).x
    ours = (ours / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(theirs, ours, atol=2e-5)
    assert ours.std() > 0.05


class Given(Batch):
    """A scheduler's noise that is given in advance; the first step's has the variance of the pipelines."""

    known: list[Tensor]

    def noise(self, shape: Any, rng: Any = None, device: Any = None) -> Tensor:
        return self.known.pop(0)


def student_of(family: str, folder: Path, **settings: Any) -> tuple[OneStepUNet, DiffusersTeacher]:
    """A student initialized with the network of a tiny pipeline."""
    teacher = DiffusersTeacher(saved(family, folder), prompts=PromptSettings(cache=None))
    side = 16 if family.startswith("pixart-alpha") else 8  # of the latents
    student = OneStepUNet((teacher.codec.channels, side, side), **settings)
    student.bind(teacher)
    for weight in student.denoiser.parameters():  # type: ignore[union-attr]
        weight.data += 0.01 * torch.randn_like(weight)
    return student.eval(), teacher


def both(family: str, student: OneStepUNet, teacher: DiffusersTeacher, folder: Path) -> tuple[Tensor, Tensor]:
    """Latents of the exported pipeline and of the student from the same noise and prompts."""
    call = save_pipeline(student, folder, teacher.source)
    steps = eval(f"dict({call.removeprefix('prompt, ')})")
    texts, (channels, side, _) = ["a red mug", "a tree"], student.shape
    condition = teacher.encode_prompt(Condition(texts), 2)
    assert condition is not None
    text = TextEmbeddings.of(condition.embeddings)  # type: ignore[arg-type]
    torch.manual_seed(0)
    noise = [torch.randn(2, channels, side, side) for _ in student.times]
    first = student.schedule.sigma(torch.tensor(student.times[0])) * noise[0]  # type: ignore[union-attr]
    queue = [each.clone() for each in noise[1:]]
    pipeline, pixels = stock(folder), side * teacher.codec.pixels
    packs = family.startswith("flux")

    def given(shape: Any, **settings: Any) -> Tensor:
        return (pack(queue.pop(0)) if packs else queue.pop(0)) if queue else torch.zeros(shape)

    module = __import__(type(pipeline.scheduler).__module__, fromlist=["randn_tensor"])
    known = {"prompt_embeds": text.tokens, "height": pixels, "width": pixels, "output_type": "latent"}
    known |= {} if text.pooled is None else {"pooled_prompt_embeds": text.pooled}
    if text.mask is not None:
        known |= {"prompt_attention_mask": text.mask, "negative_prompt": None, "use_resolution_binning": False}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "randn_tensor", given)
        theirs = pipeline(latents=pack(first) if packs else first, **known, **steps).images
    batch = Given(condition, 2)
    object.__setattr__(batch, "known", noise)
    with torch.no_grad():
        ours = student(batch).x
    return theirs, pack(ours) if packs else ours


CASES = [("sd", [1.0]), ("sd-v", [1.0, 0.75, 0.5, 0.25]), ("sd", [0.999, 0.2]), ("sd-zero-snr", [1.0]),
         ("sdxl", [1.0, 0.5]), ("pixart-sigma", [1.0, 0.5]), ("sd3", [1.0]), ("sd3", [1.0, 0.6, 0.25]),
         ("flux", [1.0]), ("flux-distilled", [1.0, 0.5])]  # fmt: skip


@pytest.mark.parametrize(("family", "times"), CASES, ids=lambda value: value if isinstance(value, str) else len(value))
def test_a_text_student_replaces_the_network_in_its_teachers_pipeline(
    family: str, times: list[float], tmp_path: Path
) -> None:
    student, teacher = student_of(family, tmp_path / "base", times=times)
    theirs, ours = both(family, student, teacher, tmp_path / "pipeline")
    # The last step's alpha is 2^-12 here and 0 in diffusers, where there is no signal; noise is below 5.
    atol = 5 * 2**-12 if family == "sd-zero-snr" else 1e-5 * float(ours.abs().max())
    torch.testing.assert_close(theirs, ours, rtol=0, atol=atol)
    assert ours.std() > 0.05
    assert theirs.shape == ours.shape


@pytest.mark.parametrize("family", ["sd3", "flux"])
def test_the_steps_of_a_flows_ode_are_its_pipelines(family: str, tmp_path: Path) -> None:
    student, teacher = student_of(family, tmp_path / "base", times=[1.0, 0.6, 0.25], sampling="ode")
    theirs, ours = both(family, student, teacher, tmp_path / "pipeline")
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-5 * float(ours.abs().max()))
    assert ours.std() > 0.05


def test_evenly_spaced_steps_need_no_list_of_them(tmp_path: Path) -> None:
    student, teacher = student_of("sd", tmp_path / "base", times=[1.0, 0.75, 0.5, 0.25])
    assert "timesteps=[999, 749, 499, 249]" in save_pipeline(student, tmp_path / "pipeline", teacher.source)
    scheduler = stock(tmp_path / "pipeline").scheduler
    scheduler.set_timesteps(4)
    assert scheduler.timesteps.tolist() == [999, 749, 499, 249]


def test_adapters_are_merged_into_a_copy_of_the_weights(tmp_path: Path) -> None:
    student, teacher = student_of("sd", tmp_path / "base", times=[1.0, 0.5], lora=LoRA(rank=2))
    before = {name: weight.clone() for name, weight in student.named_parameters()}
    theirs, ours = both("sd", student, teacher, tmp_path / "pipeline")
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-4 * float(ours.abs().max()))
    assert all(torch.equal(weight, before[name]) for name, weight in student.named_parameters())
    assert not any("lora" in path.name for path in (tmp_path / "pipeline").rglob("*"))


@pytest.mark.parametrize(
    ("student", "message"),
    [
        (lambda: OneStepUNet((2,), MLPBackbone((2,)), schedule=EDMSchedule()), "a MLPBackbone has no pipeline"),
        (lambda: OneStepUNet((3, 8, 8), unet(), "epsilon", schedule=EDMSchedule()), "needs EDM's preconditioning"),
        (lambda: OneStepUNet((3, 8, 8), unet(), times=[0.5], schedule=CosineSchedule()), "variance-exploding"),
        (lambda: OneStepUNet((3, 8, 8)), "the student has no network"),
        (
            lambda: OneStepUNet((3, 8, 8), unet(), times=[0.5, 0.3], schedule=EDMSchedule(), sampling="ode"),
            "takes the steps of an ode only under a flow's schedule",
        ),
    ],
)
def test_students_without_a_pipeline_are_refused(student: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        save_pipeline(student(), tmp_path / "pipeline")
    assert not (tmp_path / "pipeline").exists()


@pytest.mark.parametrize(
    ("family", "settings", "message"),
    [
        ("sd", {"times": [1.0, 0.3333]}, r"a pipeline stops at multiples of 1/1000, not at \[1.0, 0.3333\]"),
        ("sd", {"schedule": LinearSchedule(1e-4, 0.02, scaled=False)}, "is not that of the base"),
        (
            "sd",
            {"schedule": CosineSchedule(), "times": [0.9]},
            "a text pipeline needs epsilon, v or x0 under a discrete schedule",
        ),
        ("sd", {"schedule": FlowSchedule(), "times": [0.9]}, "a flow's pipeline needs a transformer"),
        ("if", {}, "a DiffusersBackbone in a IFPipeline has no scheduler"),
        ("multi-view", {}, "a MultiViewBackbone in a StableDiffusionPipeline has no scheduler"),
    ],
)
def test_text_students_without_a_pipeline_are_refused(
    family: str, settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    student, teacher = student_of(family, tmp_path / "base", **settings)
    with pytest.raises(UsageError, match=message):
        save_pipeline(student, tmp_path / "pipeline", teacher.source)
    assert not (tmp_path / "pipeline").exists()
    with pytest.raises(UsageError, match="for text give --base PIPELINE"):
        save_pipeline(student, tmp_path / "pipeline")
    with pytest.raises(ValueError, match=r"there is no|is not the folder of a pipeline"):
        save_pipeline(student, tmp_path / "pipeline", Source(str(tmp_path)))
