"""A teacher without weights: procedural scenes and the exact score of their renders."""

from scoredistill.teachers.gallery.gallery import Gallery, GalleryRender
from scoredistill.teachers.gallery.vocabulary import Vocabulary

__all__ = ["Gallery", "GalleryRender", "Vocabulary"]
