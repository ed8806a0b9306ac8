"""Lightning modules, data modules, callbacks and strategies."""

from pytorch_lightning.strategies import StrategyRegistry

from scoredistill.training.autoencoder import AutoencoderTraining, Reconstruction
from scoredistill.training.average import Averaging, Decay, HalfLife, MovingAverage, PowerFunction
from scoredistill.training.checkpoints import read_checkpoint
from scoredistill.training.conditions import ConditionDataModule, Labels, PromptAndCameras, PromptFile
from scoredistill.training.denoising import DenoiserTraining, ScoreMatchingTraining
from scoredistill.training.distillation import Distillation
from scoredistill.training.images import Images, TeacherPairs
from scoredistill.training.optimizers import NetworkOptimizer
from scoredistill.training.plan import Turn, UpdatePlan
from scoredistill.training.run_folder import RunFolder, read_curves
from scoredistill.training.strategies.fsdp import FSDP2
from scoredistill.training.strategies.split import SplitParticles
from scoredistill.training.text_to_image import TextToImageTraining
from scoredistill.training.training_module import TrainingModule

for strategy in (FSDP2, SplitParticles):
    strategy.register_strategies(StrategyRegistry)

__all__ = [
    "FSDP2",
    "AutoencoderTraining",
    "Averaging",
    "ConditionDataModule",
    "Decay",
    "DenoiserTraining",
    "Distillation",
    "HalfLife",
    "Images",
    "Labels",
    "MovingAverage",
    "NetworkOptimizer",
    "PowerFunction",
    "PromptAndCameras",
    "PromptFile",
    "Reconstruction",
    "RunFolder",
    "ScoreMatchingTraining",
    "SplitParticles",
    "TeacherPairs",
    "TextToImageTraining",
    "TrainingModule",
    "Turn",
    "UpdatePlan",
    "read_checkpoint",
    "read_curves",
]
