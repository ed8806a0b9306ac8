"""Noise schedules, predictions, timesteps and guidance."""

from scoredistill.diffusion.guidance import CFG, Guidance, PerpNeg
from scoredistill.diffusion.prediction import Prediction, PredictionType, noise_like
from scoredistill.diffusion.schedule import (
    CosineSchedule,
    DiscreteSchedule,
    EDMSchedule,
    FlowSchedule,
    LinearSchedule,
    Schedule,
)
from scoredistill.diffusion.timesteps import (
    DreamTimeTimesteps,
    LogNormalTimesteps,
    LogSNRTimesteps,
    TimestepSampler,
    TwoStageTimesteps,
    UniformTimesteps,
)
from scoredistill.diffusion.view_guidance import ViewPerpNeg
from scoredistill.diffusion.view_prompts import ViewPrompts
from scoredistill.diffusion.weights import CleanWeight, DivergenceWeight, SigmaSquared, TimeWeight, UniformWeight

__all__ = [
    "CFG",
    "CleanWeight",
    "CosineSchedule",
    "DiscreteSchedule",
    "DivergenceWeight",
    "DreamTimeTimesteps",
    "EDMSchedule",
    "FlowSchedule",
    "Guidance",
    "LinearSchedule",
    "LogNormalTimesteps",
    "LogSNRTimesteps",
    "PerpNeg",
    "Prediction",
    "PredictionType",
    "Schedule",
    "SigmaSquared",
    "TimeWeight",
    "TimestepSampler",
    "TwoStageTimesteps",
    "UniformTimesteps",
    "UniformWeight",
    "ViewPerpNeg",
    "ViewPrompts",
    "noise_like",
]
