"""A teacher without weights: procedural scenes and the exact score of their renders."""

from scoredistill.teachers.gallery.gallery import Gallery, GalleryRender
from scoredistill.teachers.gallery.vocabulary import Phrase, Vocabulary

__all__ = ["Gallery", "GalleryRender", "Phrase", "Vocabulary"]
