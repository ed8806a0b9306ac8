"""Lightning modules, data, callbacks: the only place with Lightning beside the command line."""

from pytorch_lightning.strategies import StrategyRegistry

from scoredistill.training.autoencoder import AutoencoderTraining
from scoredistill.training.data import ConditionDataModule, PromptAndCameras
from scoredistill.training.denoising import DenoiserTraining
from scoredistill.training.images import Images, Labels, PromptFile
from scoredistill.training.module import Distillation
from scoredistill.training.optimizers import NetworkOptimizer
from scoredistill.training.plan import UpdatePlan
from scoredistill.training.strategies.fsdp import FSDP2
from scoredistill.training.strategies.split import SplitParticles
from scoredistill.training.text_to_image import TextToImageTraining
from scoredistill.training.training_module import TrainingModule

for strategy in (FSDP2, SplitParticles):
    strategy.register_strategies(StrategyRegistry)

__all__ = [
    "FSDP2",
    "AutoencoderTraining",
    "ConditionDataModule",
    "DenoiserTraining",
    "Distillation",
    "Images",
    "Labels",
    "NetworkOptimizer",
    "PromptAndCameras",
    "PromptFile",
    "SplitParticles",
    "TextToImageTraining",
    "TrainingModule",
    "UpdatePlan",
]
