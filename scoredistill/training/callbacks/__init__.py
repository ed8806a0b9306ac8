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
from scoredistill.training.callbacks.fidelity import (
    GalleryFidelity,
    PromptFidelity,
    PromptSamples,
    ReconstructionQuality,
)
from scoredistill.training.callbacks.pictures import MeshExport, ParticleGrid, Turntable
from scoredistill.training.callbacks.quality import MixtureQuality, ModeStatistics, SampleQuality
from scoredistill.training.callbacks.terminal import RunProgress, Summary

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
