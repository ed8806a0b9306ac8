"""Networks of teachers, critics, students and discriminators."""

from scoredistill.networks.backbone import NO_LABEL, Backbone
from scoredistill.networks.denoiser import Denoiser, Parameterization
from scoredistill.networks.diffusers import DiffusersBackbone
from scoredistill.networks.edm import EDMUNet
from scoredistill.networks.edm2 import EDM2UNet
from scoredistill.networks.embedding import ConditionEmbedding
from scoredistill.networks.lora import LoRA
from scoredistill.networks.mlp import MLPBackbone
from scoredistill.networks.published import load_published, read_tensors
from scoredistill.networks.storage import load_denoiser, save_denoiser
from scoredistill.networks.text_to_image import (
    FluxBackbone,
    MultiViewBackbone,
    PixArtBackbone,
    SD3Backbone,
    SDXLBackbone,
)

__all__ = [
    "NO_LABEL",
    "Backbone",
    "ConditionEmbedding",
    "Denoiser",
    "DiffusersBackbone",
    "EDM2UNet",
    "EDMUNet",
    "FluxBackbone",
    "LoRA",
    "MLPBackbone",
    "MultiViewBackbone",
    "Parameterization",
    "PixArtBackbone",
    "SD3Backbone",
    "SDXLBackbone",
    "load_denoiser",
    "load_published",
    "read_tensors",
    "save_denoiser",
]
