"""A teacher without weights: procedural scenes, their renders and the exact score of those."""

from scoredistill.teachers.gallery.gallery import Gallery, GalleryRender
from scoredistill.teachers.gallery.vocabulary import Phrase, Vocabulary

__all__ = ["Gallery", "GalleryRender", "Phrase", "Vocabulary"]
