"""Noise schedules, predictions, timesteps and guidance."""

from scoredistill.diffusion.guidance import CFG, Guidance, PerpNeg
from scoredistill.diffusion.prediction import Prediction, PredictionType, noise_like
from scoredistill.diffusion.schedule import CosineSchedule, EDMSchedule, FlowSchedule, LinearSchedule, Schedule
from scoredistill.diffusion.timesteps import (
    DreamTimeTimesteps,
    LogNormalTimesteps,
    LogSNRTimesteps,
    TimestepSampler,
    TwoStageTimesteps,
    UniformTimesteps,
)
from scoredistill.diffusion.weights import CleanWeight, DivergenceWeight, SigmaSquared, TimeWeight, UniformWeight

__all__ = [
    "CFG",
    "CleanWeight",
    "CosineSchedule",
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
    "noise_like",
]
