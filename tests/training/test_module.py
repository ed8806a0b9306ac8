"""The Lightning module: counters, averages, accumulation, resuming and errors."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from laws.zoo import mlp_critic
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.loggers import Logger
from torch import Tensor, nn

from scoredistill.critics import DiracCritic, ExactCritic, ParticleCritic
from scoredistill.diffusion import Guidance, NoiseLevelTimesteps
from scoredistill.divergences import ForwardKL, JensenShannon
from scoredistill.generators import Generator, ImageParticles
from scoredistill.losses import SDS, VSD, FDistill, ScoreDistillation
from scoredistill.ratios import BatchMeanNormalizer, ExactRatio, TimeBinNormalizer
from scoredistill.teachers import GaussianMixture
from scoredistill.training import ConditionDataModule, Distillation, NetworkOptimizer, UpdatePlan
from scoredistill.types import Batch, Condition, Diffused, Sample


def teacher() -> GaussianMixture:
    return GaussianMixture(torch.tensor([[1.0, 0.0], [-1.0, 0.5]]), 0.4)


def particles(n: int = 4, per_step: int | None = None) -> ImageParticles:
    return ImageParticles(torch.randn(n, 2, generator=torch.Generator().manual_seed(1)), per_step)


def learned() -> FDistill:
    """A loss with state: a trained critic and running statistics."""
    return FDistill(JensenShannon(), mlp_critic(), ExactRatio(q=ParticleCritic(0.1)), [TimeBinNormalizer(3)])


def module(loss: ScoreDistillation | None = None, generator: Generator | None = None, **settings: Any) -> Distillation:
    settings = {"generator_optimizer": NetworkOptimizer(warmup=3), "seed": 7} | settings
    return Distillation(generator or particles(), teacher(), loss or SDS(), **settings)


def trainer(steps: int, *callbacks: Callback, logger: Logger | bool = False, every: int = 1) -> Trainer:
    quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    settings = {"accelerator": "cpu", "devices": 1, "max_steps": steps, "max_epochs": -1, "limit_val_batches": 0}
    return Trainer(logger=logger, log_every_n_steps=every, callbacks=list(callbacks), **settings, **quiet)


def fit(
    model: Distillation,
    steps: int,
    *callbacks: Callback,
    resume: Path | None = None,
    data: ConditionDataModule | None = None,
) -> Trainer:
    return run(trainer(steps, *callbacks), model, data, resume)


def run(
    made: Trainer, model: Distillation, data: ConditionDataModule | None = None, resume: Path | None = None
) -> Trainer:
    with warnings.catch_warnings():
        # Lightning's warnings: about a class that torch will remove, and about missing loader processes.
        warnings.filterwarnings("ignore", ".*LeafSpec", FutureWarning)
        warnings.filterwarnings("ignore", ".*does not have many workers")
        made.fit(
            model, datamodule=data or ConditionDataModule(), ckpt_path=resume, weights_only=True if resume else None
        )
    return made


class Memory(Logger):
    """A logger that keeps all lines."""

    name, version = "memory", 0

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[dict[str, float]] = []

    def log_hyperparams(self, *arguments: Any, **settings: Any) -> None:
        """Nothing."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.lines.append(metrics)


class Watch(Callback):
    """Records the particles, and the updated networks, after each tick."""

    def __init__(self) -> None:
        self.turns = ""
        self.values: list[Tensor] = []
        self.steps: list[int] = []
        self.metrics: dict[str, Tensor] = {}

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        before = self.steps[-1] if self.steps else 0
        self.turns += "G" if trainer.global_step > before else "-"
        self.steps.append(trainer.global_step)
        self.values.append(pl_module.distiller.generator.values.detach().clone())
        self.metrics = dict(trainer.callback_metrics)


@pytest.mark.parametrize(
    ("plan", "turns", "critic_steps"),
    [
        (UpdatePlan(), "GGG", 3),
        (UpdatePlan(3), "--G--G--G", 9),
        (UpdatePlan(2, "alternating"), "--G--G--G", 6),
    ],
    ids=["concurrent", "concurrent 3", "alternating 2"],
)
def test_steps_are_the_generators_and_critic_steps_the_plans(plan: UpdatePlan, turns: str, critic_steps: int) -> None:
    watch, model = Watch(), module(learned(), plan=plan)
    before = [parameter.detach().clone() for parameter in model.distiller.loss.parameters()]
    made = fit(model, 3, watch)
    assert watch.turns == turns
    assert made.global_step == 3
    assert (model.ticks, model.critic_steps) == (len(turns), critic_steps)
    changed = [not torch.equal(a, b) for a, b in zip(watch.values, watch.values[1:], strict=False)]
    assert changed == [turn == "G" for turn in turns[1:]]
    assert all(not torch.equal(a, b) for a, b in zip(before, model.distiller.loss.parameters(), strict=True))
    assert {"loss", "gradient_norm", "critic/loss", "critic/gradient_norm", "objective/t"} <= watch.metrics.keys()


def test_a_loss_without_a_trained_critic_needs_one_optimizer() -> None:
    watch, model = Watch(), module(plan=UpdatePlan(5))
    fit(model, 3, watch)
    assert watch.turns == "GGG"
    assert model.critic_steps == 0
    assert len(model.configure_optimizers()) == 1


@pytest.mark.parametrize("plan", [UpdatePlan(), UpdatePlan(2, "alternating")], ids=["concurrent", "alternating"])
def test_the_moving_average_follows_generator_steps_only(plan: UpdatePlan) -> None:
    decay, watch = 0.6, Watch()
    model = module(VSD(mlp_critic()), plan=plan, ema=decay)
    fit(model, 4, watch)
    made = [values for values, turn in zip(watch.values, watch.turns, strict=True) if turn == "G"]
    average = made[0]  # begins as the first step's result
    for values in made[1:]:
        average = decay * average + (1 - decay) * values
    torch.testing.assert_close(model.eval_generator.values.detach(), average, rtol=1e-12, atol=1e-14)
    assert not torch.equal(model.eval_generator.values, model.distiller.generator.values)
    assert module().eval_generator is not None


class Table(Generator):
    """x = a theta + b theta^2, with theta = rows[label]: samples that depend on the batch's rows only."""

    def __init__(self) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.randn(6, 2, generator=torch.Generator().manual_seed(2)))
        self.shared = nn.Parameter(torch.tensor([1.0, 0.1]))

    def forward(self, batch: Batch, rng: torch.Generator | None = None) -> Sample:
        theta = self.values[batch.condition.label]
        return Sample(self.shared[0] * theta + self.shared[1] * theta**2, regularizer=0.01 * (theta**2).mean())


LABELS = ConditionDataModule(labels=[0, 1, 2, 3, 4, 5, 0, 2])


def trained_table(accumulate: int, loss: ScoreDistillation) -> dict[str, Tensor]:
    model = module(loss, Table(), plan=UpdatePlan(accumulate=accumulate))
    fit(model, 4, data=LABELS)
    return {key: value.clone() for key, value in model.state_dict().items() if not key.startswith("distiller.teacher")}


def ratio() -> ExactRatio:
    return ExactRatio(q=ExactCritic(GaussianMixture(torch.zeros(1, 2), 1.2)))


TABLE_LOSSES = {
    "SDS": SDS,
    "batch mean": lambda: FDistill(ForwardKL(), ratio().q, ratio(), weight_normalizer=BatchMeanNormalizer()),
    "trained critic and time bins": lambda: FDistill(JensenShannon(), mlp_critic(), ratio(), [TimeBinNormalizer(3)]),
}


@pytest.mark.parametrize("accumulate", [2, 3, 8])
@pytest.mark.parametrize("loss", TABLE_LOSSES.values(), ids=TABLE_LOSSES.keys())
def test_law_18_accumulation_changes_nothing(loss: Any, accumulate: int) -> None:
    whole, parts = trained_table(1, loss()), trained_table(accumulate, loss())
    assert whole.keys() == parts.keys()
    assert not torch.equal(whole["distiller.generator.values"], Table().values)
    for key, value in whole.items():
        torch.testing.assert_close(parts[key], value, rtol=1e-9, atol=1e-11)


def saved(path: Path, loss: ScoreDistillation, steps: int, total: int, **settings: Any) -> Path:
    """Train `steps` of `total` steps, as an interrupted run, and keep a checkpoint."""
    generator, data = settings.pop("generator", None) or particles(8, per_step=3), settings.pop("data", None)

    class Stop(Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            if trainer.global_step == steps:
                trainer.save_checkpoint(path)
                trainer.should_stop = True

    fit(module(loss, generator, **settings), total, Stop(), data=data)
    return path


@pytest.mark.parametrize("plan", [UpdatePlan(2), UpdatePlan(2, "alternating")], ids=["concurrent", "alternating"])
def test_a_resumed_run_ends_as_one_that_was_not_interrupted(tmp_path: Path, plan: UpdatePlan) -> None:
    settings = {"plan": plan, "ema": 0.5, "timesteps": NoiseLevelTimesteps(1.0, 3.0)}
    whole = module(learned(), particles(8, per_step=3), **settings)
    fit(whole, 7)
    path = saved(tmp_path / "half.ckpt", learned(), 3, 7, **settings)
    resumed = module(learned(), particles(8, per_step=3), **settings)
    made = fit(resumed, 7, resume=path)
    assert made.global_step == 7
    expected = whole.state_dict()
    assert resumed.counters() == whole.counters()
    assert resumed.ticks > 7
    for key, value in resumed.state_dict().items():
        assert torch.equal(value, expected[key]), key
    for ours, theirs in zip(made.optimizers, whole.trainer.optimizers, strict=True):
        for p, q in zip(ours.state.values(), theirs.state.values(), strict=True):
            assert all(torch.equal(torch.as_tensor(p[name]), torch.as_tensor(q[name])) for name in q)


class Varying(ConditionDataModule):
    """Different rows at every tick."""

    def batch_at(self, tick: int) -> Batch:
        return Batch(Condition(label=torch.tensor([tick, tick + 1, tick * tick]) % 6))


def test_a_resumed_run_continues_with_the_next_batch(tmp_path: Path) -> None:
    whole, resumed = (module(generator=Table()) for _ in range(2))
    fit(whole, 7, data=Varying())
    path = saved(tmp_path / "half.ckpt", SDS(), 3, 7, generator=Table(), data=Varying())
    fit(resumed, 7, resume=path, data=Varying())
    assert torch.equal(resumed.distiller.generator.values, whole.distiller.generator.values)


def test_a_checkpoint_is_plain_tensors_without_the_teacher(tmp_path: Path) -> None:
    path = saved(tmp_path / "run.ckpt", learned(), 2, 4)
    checkpoint = torch.load(path, weights_only=True)
    assert checkpoint["global_step"] == 2
    keys = checkpoint["state_dict"].keys()
    assert "distiller.generator.values" in keys
    assert "distiller.loss.ratio_normalizers.0.log_mean" in keys
    assert not [key for key in keys if key.startswith("distiller.teacher.")]


def test_a_checkpoint_of_another_loss_is_refused_by_name(tmp_path: Path) -> None:
    path = saved(tmp_path / "run.ckpt", SDS(), 2, 4)
    with pytest.raises(ValueError, match=r"does not fit the recipe: distiller\.loss\.critic\.\S+ is missing in the"):
        fit(module(VSD(mlp_critic()), particles(8, per_step=3)), 4, resume=path)
    with pytest.raises(ValueError, match=r"distiller\.generator\.values is torch\.Size\(\[8, 2\]\) in the checkpoint"):
        fit(module(SDS(), particles(5)), 4, resume=path)


class Breaks(SDS):
    """SDS whose baseline is NaN after two steps."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def baseline(self, diffused: Diffused, teacher: Any, guidance: Guidance) -> Tensor:
        self.calls += 1
        return super().baseline(diffused, teacher, guidance) / (0 if self.calls > 2 else 1)


def test_a_gradient_that_is_not_finite_stops_the_run_and_names_the_step() -> None:
    model, watch = module(Breaks()), Watch()
    with pytest.raises(FloatingPointError, match="the generator's gradient is not finite at step 2"):
        fit(model, 5, watch)
    assert len(watch.values) == 2
    assert torch.equal(model.distiller.generator.values, watch.values[-1])


def test_a_critic_that_is_not_finite_stops_the_run_too() -> None:
    critic = mlp_critic()

    def infinite(diffused: Diffused, teacher: Any) -> Tensor:
        return (sum(p.sum() for p in critic.parameters()) * float("inf")).expand(len(diffused.t))

    critic.training_error = infinite  # type: ignore[method-assign]
    with pytest.raises(FloatingPointError, match="the critic's gradient is not finite at step 0"):
        fit(module(VSD(critic)), 3)


def test_training_is_a_function_of_its_seed() -> None:
    results = []
    for seed in (3, 3, 4):
        torch.manual_seed(len(results))
        model = module(VSD(DiracCritic()), seed=seed)
        fit(model, 3)
        results.append(model.distiller.generator.values.detach())
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_running_statistics_include_each_generator_step_once() -> None:
    model = module(learned(), plan=UpdatePlan(3))
    fit(model, 4)
    normalizer = model.distiller.loss.ratio_normalizers[0]
    assert 4 <= int(normalizer.count.sum()) <= 12  # one to three bins a step
    assert int(normalizer.count.max()) <= 4


def test_predictions_are_the_evaluated_generators_samples() -> None:
    model = module(ema=0.5)
    fit(model, 2)
    predicted = model.predict_step(Batch(), 0)
    assert torch.equal(predicted["x"], model.eval_generator.values)
    assert predicted["particle"].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("plan", [UpdatePlan(), UpdatePlan(3), UpdatePlan(2, "alternating")])
@pytest.mark.parametrize("every", [2, 5])
def test_lines_of_a_sparse_log_are_those_of_a_full_one(plan: UpdatePlan, every: int) -> None:
    logs = {number: Memory() for number in (1, every)}
    for number, log in logs.items():
        # With this many particles, every step has some at every noise level.
        run(trainer(10, logger=log, every=number), module(learned(), particles(64), plan=plan))
    expected = [line for tick, line in enumerate(logs[1].lines, 1) if tick % every == 0]
    assert expected[-1].keys() >= {"loss", "objective/h/mean", "critic/loss"}
    assert len(logs[every].lines) == len(expected)
    for found, line in zip(logs[every].lines, expected, strict=True):
        assert found == pytest.approx(line, rel=0, abs=0)
