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
    NoiseLevelTimesteps,
    TimestepSampler,
    TwoStageTimesteps,
    UniformTimesteps,
)
from scoredistill.diffusion.view_guidance import ViewPerpNeg
from scoredistill.diffusion.view_prompts import ViewPrompts
from scoredistill.diffusion.weights import DivergenceWeight, SigmaSquaredWeight, TimeWeight, UniformWeight, X0Weight

__all__ = [
    "CFG",
    "CosineSchedule",
    "DiscreteSchedule",
    "DivergenceWeight",
    "DreamTimeTimesteps",
    "EDMSchedule",
    "FlowSchedule",
    "Guidance",
    "LinearSchedule",
    "LogNormalTimesteps",
    "NoiseLevelTimesteps",
    "PerpNeg",
    "Prediction",
    "PredictionType",
    "Schedule",
    "SigmaSquaredWeight",
    "TimeWeight",
    "TimestepSampler",
    "TwoStageTimesteps",
    "UniformTimesteps",
    "UniformWeight",
    "ViewPerpNeg",
    "ViewPrompts",
    "X0Weight",
    "noise_like",
]
