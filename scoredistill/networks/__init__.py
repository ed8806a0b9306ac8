"""Networks of teachers, critics, students and discriminators."""

from scoredistill.networks.backbone import NO_LABEL, Backbone, FeatureLayer
from scoredistill.networks.denoiser import Denoiser, Parameterization
from scoredistill.networks.diffusers import DiffusersBackbone
from scoredistill.networks.edm import EDMUNet
from scoredistill.networks.edm2 import EDM2UNet
from scoredistill.networks.embedding import CameraConditioned, ConditionEmbedding
from scoredistill.networks.lora import LoRA, add_lora, load_lora, save_lora
from scoredistill.networks.mlp import MLPBackbone
from scoredistill.networks.modules import Precise, eval_mode
from scoredistill.networks.published import load_published, read_tensors
from scoredistill.networks.storage import load_denoiser, save_denoiser
from scoredistill.networks.text_backbones import (
    FluxBackbone,
    MultiViewBackbone,
    PixArtBackbone,
    SD3Backbone,
    SDXLBackbone,
)
from scoredistill.networks.unet import Stage, StagedUNet

__all__ = [
    "NO_LABEL",
    "Backbone",
    "CameraConditioned",
    "ConditionEmbedding",
    "Denoiser",
    "DiffusersBackbone",
    "EDM2UNet",
    "EDMUNet",
    "FeatureLayer",
    "FluxBackbone",
    "LoRA",
    "MLPBackbone",
    "MultiViewBackbone",
    "Parameterization",
    "PixArtBackbone",
    "Precise",
    "SD3Backbone",
    "SDXLBackbone",
    "Stage",
    "StagedUNet",
    "add_lora",
    "eval_mode",
    "load_denoiser",
    "load_lora",
    "load_published",
    "read_tensors",
    "save_denoiser",
    "save_lora",
]
