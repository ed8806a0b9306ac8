"""Sources of real samples for training teachers and evaluating students."""

from scoredistill.data.encoder import PictureEncoder
from scoredistill.data.folder import ImageFolder
from scoredistill.data.gallery_pictures import GalleryImages
from scoredistill.data.huggingface import HuggingFaceImages
from scoredistill.data.latents import LatentCache
from scoredistill.data.samples import DigitImages, TeacherSamples
from scoredistill.data.shards import WebDatasetShards
from scoredistill.data.source import ImageSource
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
