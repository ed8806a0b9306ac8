"""Sources of real samples for training teachers and evaluating students."""

from scoredistill.data.folder import ImageFolder
from scoredistill.data.huggingface import HuggingFaceImages
from scoredistill.data.latents import LatentCache, PictureEncoder
from scoredistill.data.shards import WebDatasetShards
from scoredistill.data.source import ImageSource
from scoredistill.data.synthetic import DigitImages, GalleryImages, TeacherSamples
from scoredistill.data.torchvision import TorchvisionImages

__all__ = [
    "DigitImages",
    "GalleryImages",
    "HuggingFaceImages",
    "ImageFolder",
    "ImageSource",
    "LatentCache",
    "PictureEncoder",
    "TeacherSamples",
    "TorchvisionImages",
    "WebDatasetShards",
]
