"""Text-to-image pipelines of diffusers as teachers."""

from scoredistill.teachers.diffusers.encoder import TextEncoder
from scoredistill.teachers.diffusers.pipeline import DiffusersTeacher
from scoredistill.teachers.diffusers.prompts import PromptEmbedder, PromptSettings

__all__ = ["DiffusersTeacher", "PromptEmbedder", "PromptSettings", "TextEncoder"]
