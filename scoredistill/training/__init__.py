"""Lightning modules, data, callbacks: the only place with Lightning beside the command line."""

from scoredistill.training.autoencoder import AutoencoderTraining
from scoredistill.training.data import Conditions, PromptAndCameras
from scoredistill.training.denoising import DenoiserTraining
from scoredistill.training.images import Images, Labels
from scoredistill.training.module import Distillation
from scoredistill.training.optimizers import NetworkOptimizer
from scoredistill.training.plan import UpdatePlan
from scoredistill.training.prompts import Prompts
from scoredistill.training.text_to_image import TextToImageTraining

__all__ = [
    "AutoencoderTraining",
    "Conditions",
    "DenoiserTraining",
    "Distillation",
    "Images",
    "Labels",
    "NetworkOptimizer",
    "PromptAndCameras",
    "Prompts",
    "TextToImageTraining",
    "UpdatePlan",
]
