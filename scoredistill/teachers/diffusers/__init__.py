"""Text-to-image pipelines of diffusers as teachers."""

from scoredistill.teachers.diffusers.pipeline import DiffusersTeacher
from scoredistill.teachers.diffusers.prompts import PromptSettings

__all__ = ["DiffusersTeacher", "PromptSettings"]
