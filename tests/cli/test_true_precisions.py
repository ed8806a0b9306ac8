"""Shipped recipes, shortened, in every true precision."""

from pathlib import Path

import pytest
import torch

RECIPES = ["points/vsd_network", "line/jensen_shannon", "quickstart", "f_distill/grid_learned", "digits/vsd",
           "teachers/digits", "classes/dds"]  # fmt: skip
SHORT = ["--trainer.max_steps", "3", "--trainer.accelerator", "cpu", "--trainer.callbacks", "null", "--output", "run"]
TYPES = {"64-true": torch.float64, "bf16-true": torch.bfloat16, "16-true": torch.float16}


@pytest.mark.slow
@pytest.mark.parametrize("precision", TYPES)
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_trains_and_is_tested_in_a_true_precision(cli, folder: Path, recipe: str, precision: str) -> None:
    torch.set_default_dtype(torch.float32)
    words = ["--trainer.precision", precision, *SHORT]
    result = cli("fit", "--config", recipe, *words)
    assert result.code == 0, result.err
    stored = torch.load(folder / "run/0/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    weights = [v for name, v in stored.items() if v.is_floating_point() and v.ndim > 0 and "log_mean" not in name]
    assert {value.dtype for value in weights} == {TYPES[precision]}
    assert all(bool(torch.isfinite(value).all()) for value in weights)
    result = cli("test", "--config", recipe, *words, "--ckpt_path", "run/0")
    assert result.code == 0, result.err
