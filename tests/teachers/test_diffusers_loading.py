"""Missing pipelines and unsuitable settings: one clear message each."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from teachers.tiny_pipelines import saved

from scoredistill.teachers import DiffusersTeacher

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")


def rewritten(model: str, **entries: object) -> str:
    index = Path(model) / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | entries))
    return model


def pickled(model: str) -> str:
    weights = Path(model) / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    return model


def with_scheduler(model: str, **config: object) -> str:
    (Path(model) / "scheduler" / "scheduler_config.json").write_text(json.dumps(config))
    return model


def edm(model: str) -> str:
    """A scheduler with an unsupported process."""
    with_scheduler(model, _class_name="EDMEulerScheduler")
    return rewritten(model, scheduler=["diffusers", "EDMEulerScheduler"])


def broken(model: str) -> str:
    (Path(model) / "model_index.json").unlink()
    return model


WRONG: dict[str, tuple[str, Callable[[str], str], dict[str, Any], str]] = {
    "folder": ("sd", broken, {}, "has no model_index.json"),
    "class": (
        "sd",
        lambda model: rewritten(model, _class_name="KandinskyPipeline"),
        {},
        "KandinskyPipeline; supp",
    ),
    "part": ("sd", lambda model: rewritten(model, unet=[None, None]), {}, "has no unet"),
    "schedule": ("sd", edm, {}, "the schedule of a EDMEulerScheduler is not supported"),
    "prediction": ("sd", lambda model: with_scheduler(model, prediction_type="noise"), {}, "prediction_type 'noise'"),
    "camera": ("multi-view", str, {"guidance_embedding": 2.0}, "guidance_embedding"),
    "pickle": ("sd", pickled, {}, "could not load the unet.*safetensors"),
    "variant": ("sd", str, {"variant": "fp16"}, "of variant 'fp16'"),
    "guidance": ("sd", str, {"guidance_embedding": 3.5}, "guidance_embedding: a StableDiffusionPipeline"),
    "schnell": ("flux", str, {"guidance_embedding": 3.5}, "guidance_embedding: this FLUX is not"),
    "resolution": ("sd", str, {"resolution": 15}, "resolution must be a multiple of 2, got 15"),
    "attention": ("flux", str, {"attention": "fast"}, "attention: "),
    "unet": ("sd", str, {"attention": "native"}, "a UNet2DConditionModel of diffusers has no attention backends"),
    "dtype": ("sd", str, {"dtype": "int8"}, "dtype: choose float32, float16 or bfloat16"),
}


@pytest.mark.parametrize(("family", "change", "settings", "message"), WRONG.values(), ids=WRONG)
def test_errors_of_loading_are_reported(
    family: str, change: Any, settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    model = change(saved(family, tmp_path))
    with pytest.raises(ValueError, match=message):
        DiffusersTeacher(model, **settings)


def test_without_the_hub_the_error_suggests_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"'somebody/something' is not a local folder.*set the folder of a downloaded"):
        DiffusersTeacher("somebody/something")
