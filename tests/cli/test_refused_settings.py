"""Numbers with which training would not work, and trainer options without effect, are refused before training."""

import pytest

RADIUS = "{class_path: NeRF, init_args: {initial: {class_path: DensityBlob, init_args: {radius: -1.0}}}}"
OPACITY = "{class_path: Opacity, init_args: {weight: -1.0}}"
PENALTY = f"{{class_path: NeRF, init_args: {{regularizers: [{{class_path: Sparsity}}, {OPACITY}]}}}}"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--trainer.max_steps", "0"], "trainer.max_steps: expected a whole number >= 1"),
        (["--trainer.max_steps", "-1"], "trainer.max_steps: expected a whole number >= 1"),
        (["--trainer.max_epochs", "0"], "trainer.max_epochs: expected a whole number >= 1, leave it null"),
        (["--trainer.max_epochs", "-2"], "trainer.max_epochs: expected a whole number >= 1"),
        (["--trainer.limit_train_batches", "0"], "trainer.limit_train_batches: expected a whole number >= 1"),
        (["--trainer.limit_train_batches", "0.5"], "trainer.limit_train_batches: expected a whole number >= 1"),
        (["--trainer.val_check_interval", "0"], "trainer.val_check_interval: expected a whole number >= 1"),
        (["--trainer.check_val_every_n_epoch", "0"], "trainer.check_val_every_n_epoch: expected a whole number >= 1"),
        (["--trainer.log_every_n_steps", "-1"], "trainer.log_every_n_steps: expected a whole number >= 0"),
        (["--trainer.accumulate_grad_batches", "2"], "set model.plan.accumulate instead"),
        (["--trainer.gradient_clip_val", "1.0"], "set model.generator_optimizer.clip instead"),
        (["--trainer.gradient_clip_algorithm", "norm"], "set model.generator_optimizer.clip instead"),
        (["--trainer.overfit_batches", "2"], "trainer.overfit_batches: it has no effect here"),
    ],
)
def test_a_trainer_that_would_not_train_is_refused(cli, folder, words, said):
    result = cli("fit", "--config", "points.yaml", *words)
    assert result.code == 2
    assert said in result.err
    assert not (folder / "runs").exists()


@pytest.mark.parametrize("words", [["--trainer.max_epochs", "-1"], ["--trainer.limit_train_batches", "1.0"]])
def test_lightnings_values_for_no_limit_are_accepted(cli, folder, words):
    assert cli("fit", "--config", "points.yaml", *words).code == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--model.generator_optimizer.clip", "-1"], "model.generator_optimizer.clip must be above 0, got -1"),
        (["--model.generator_optimizer.clip", "0"], "model.generator_optimizer.clip must be above 0, got 0"),
        (["--model.generator_optimizer.factor", "-1"], "model.generator_optimizer.factor must be at least 0, got -1"),
        (["--model.generator_optimizer.factor", "0"], "factor is 0 at all times"),
        (["--model.generator_optimizer.warmup", "-5"], "model.generator_optimizer.warmup must be at least 0, got -5"),
        (["--model.generator_optimizer.rates", "{values: .nan}"], "rates.values must be above 0, got nan"),
        (["--model.generator", RADIUS], "model.generator.initial.radius must be above 0, got -1"),
        (["--model.generator", PENALTY], "model.generator.regularizers[1].weight must be at least 0, got -1"),
        (["--model.plan.critic_steps", "0"], "model.plan.critic_steps must be at least 1, got 0"),
        (
            ["--data", "PromptAndCameras", "--data.prompt", "a", "--data.fov", "[.nan, 40]"],
            "data.fov must lie in (0, 180)",
        ),
    ],
)
def test_a_number_out_of_its_range_is_named_by_its_key(cli, folder, words, said):
    result = cli("fit", "--config", "points.yaml", *words)
    assert result.code == 2
    assert said in result.err
    assert not (folder / "runs").exists()


@pytest.mark.parametrize(("lr", "said"), [("0", "above 0, got 0"), (".nan", "above 0, got nan"), (".inf", "got inf")])
def test_an_invalid_learning_rate_is_refused(cli, folder, lr, said):
    optimizer = f"{{class_path: SGD, init_args: {{lr: {lr}}}}}"
    result = cli("fit", "--config", "points.yaml", "--model.generator_optimizer.optimizer", optimizer)
    assert result.code != 0
    assert "lr" in result.err
    assert said in result.err


LATENTS = ["--model.generator.latents", "4", "--model.generator.background", "LearnedBackground"]
MUG = '["a mug", "a chair"]'


@pytest.mark.parametrize(
    ("callback", "said"),
    [
        ("{class_path: Turntable}", "Turntable needs a generator of 3D scenes"),
        ("{class_path: MeshExport}", "MeshExport needs a generator of 3D scenes"),
        ("{class_path: GalleryFidelity}", "GalleryFidelity needs a generator of 3D scenes"),
        (f"{{class_path: PromptFidelity, init_args: {{candidates: {MUG}}}}}", "PromptFidelity needs a generator of 3D"),
        (
            f"{{class_path: PromptSamples, init_args: {{prompts: {MUG}}}}}",
            "PromptSamples needs a generator that",
        ),
        ("{class_path: MixtureQuality}", "MixtureQuality needs a generator that samples from noise"),
        ("{class_path: SampleQuality}", "SampleQuality needs a generator that samples from noise"),
        ("{class_path: ReconstructionQuality}", "ReconstructionQuality needs task: autoencoder"),
    ],
)
def test_callbacks_unsuited_to_image_particles_are_refused_before_training(cli, folder, callback, said):
    result = cli("fit", "--config", "points.yaml", "--trainer.callbacks", f"[{callback}]")
    assert result.code != 0
    assert said in result.err
    assert "ImageParticles" in result.err or "Distillation" in result.err
    assert not list((folder / "runs").rglob("metrics.json"))
    assert not list((folder / "runs").rglob("*.ckpt"))


@pytest.mark.parametrize(
    ("words", "callback", "said"),
    [
        ([], "ModeStatistics", "ModeStatistics needs ImageParticles"),
        ([], "GalleryFidelity", "GalleryFidelity needs the Gallery teacher"),
        (
            ["--data", "ConditionDataModule"],
            "Turntable",
            "Turntable needs PromptAndCameras data, got ConditionDataModule",
        ),
        (["--data", "ConditionDataModule"], "ParticleGrid", "ParticleGrid needs PromptAndCameras data"),
        (LATENTS, "MeshExport", "MeshExport needs scenes of colors"),
    ],
)
def test_callbacks_unsuited_to_scenes_are_refused_before_training(cli, folder, words, callback, said):
    (folder / "nerf.yaml").write_text(
        "model:\n  generator: {class_path: NeRF, init_args: {resolution: 4, samples: 4}}\n"
        "data: {class_path: PromptAndCameras, init_args: {prompt: a mug}}\n"
    )
    callbacks = ["--trainer.callbacks", f"[{{class_path: {callback}}}]"]
    result = cli("fit", "--config", "points.yaml", "--config", "nerf.yaml", *words, *callbacks)
    assert result.code != 0
    assert said in result.err
    assert not list((folder / "runs").rglob("*.ckpt"))


@pytest.mark.parametrize(
    ("generator", "radius", "code"),
    [
        ("{class_path: NeRF, init_args: {particles: 1, resolution: 4, samples: 4}}", "[0.3, 2.0]", 1),
        ("{class_path: DMTet, init_args: {particles: 1, grid: 6, resolution: 4}}", "[0.5, 2.0]", 1),
        ("{class_path: NeRF, init_args: {particles: 1, resolution: 4, samples: 4}}", "[0.8, 2.0]", 0),
        (
            "{class_path: NeRF, init_args: {particles: 1, resolution: 4, samples: 4, initial: HollowSphere}}",
            "[0.1, 0.2]",
            0,
        ),
    ],
)
def test_cameras_inside_the_object_are_refused(cli, folder, generator, radius, code):
    (folder / "scene.yaml").write_text(
        f"model: {{generator: {generator}, loss: SDS,\n"
        "  teacher: {class_path: Gallery, init_args: {supersample: 1}}}\n"
        f"data: {{class_path: PromptAndCameras, init_args: {{prompt: a mug, views: 1, radius: {radius}}}}}\n"
        "trainer: {max_steps: 1, accelerator: cpu, logger: false}\n"
    )
    result = cli("fit", "--config", "scene.yaml")
    assert result.code == code, result.err
    assert code == 0 or "data.radius starts at" in result.err
    assert code == 0 or not (folder / "runs").exists()
