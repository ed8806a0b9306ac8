"""Text-to-image pipelines of diffusers as teachers."""

from scoredistill.teachers.diffusers.prompts import PromptSettings
from scoredistill.teachers.diffusers.teacher import DiffusersTeacher

__all__ = ["DiffusersTeacher", "PromptSettings"]
