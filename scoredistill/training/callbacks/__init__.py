"""Callbacks: metrics, pictures, progress."""

from scoredistill.training.callbacks.cost import Cost
from scoredistill.training.callbacks.evaluation import (
    Evaluation,
    EvaluationError,
    EvaluationFailures,
    GeneratorCallback,
    merge_metrics,
    run_folder,
)
from scoredistill.training.callbacks.gallery import GalleryFidelity
from scoredistill.training.callbacks.pictures import MeshExport, ParticleGrid, Turntable
from scoredistill.training.callbacks.progress import RunProgress
from scoredistill.training.callbacks.prompt import PromptFidelity, PromptSamples
from scoredistill.training.callbacks.quality import MixtureQuality, ModeStatistics, SampleQuality
from scoredistill.training.callbacks.reconstruction import ReconstructionQuality
from scoredistill.training.callbacks.summary import Summary

__all__ = [
    "Cost",
    "Evaluation",
    "EvaluationError",
    "EvaluationFailures",
    "GalleryFidelity",
    "GeneratorCallback",
    "MeshExport",
    "MixtureQuality",
    "ModeStatistics",
    "ParticleGrid",
    "PromptFidelity",
    "PromptSamples",
    "ReconstructionQuality",
    "RunProgress",
    "SampleQuality",
    "Summary",
    "Turntable",
    "merge_metrics",
    "run_folder",
]
