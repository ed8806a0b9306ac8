"""Noise schedules, predictions, timesteps and guidance."""

from scoredistill.diffusion.cfg_variants import CFGVariant, CFGZeroStar, IntervalCFG, ProjectedCFG, RescaledCFG
from scoredistill.diffusion.guidance import CFG, ConditionalPredictor, Guidance, PerpNeg, perp_neg, predict_distinct
from scoredistill.diffusion.mixture import Covariance, MixturePosterior, diffused_mixture
from scoredistill.diffusion.prediction import Prediction, PredictionType, noise_like
from scoredistill.diffusion.schedule import (
    CosineSchedule,
    DiscreteSchedule,
    EDMSchedule,
    FlowSchedule,
    LinearSchedule,
    Schedule,
)
from scoredistill.diffusion.time_weights import (
    DivergenceWeight,
    FlowWeight,
    SigmaSquaredWeight,
    TimeWeight,
    UniformWeight,
    X0Weight,
)
from scoredistill.diffusion.timesteps import (
    DreamTimeTimesteps,
    LogitNormalTimesteps,
    LogNormalTimesteps,
    NoiseLevelTimesteps,
    PolynomialTimesteps,
    ShiftedTimesteps,
    SquareRootTimesteps,
    StudentTTimesteps,
    TimeBins,
    TimestepSampler,
    TwoStageTimesteps,
    UniformTimesteps,
)
from scoredistill.diffusion.view_guidance import ViewPerpNeg
from scoredistill.diffusion.view_prompts import ViewPrompts

__all__ = [
    "CFG",
    "CFGVariant",
    "CFGZeroStar",
    "ConditionalPredictor",
    "CosineSchedule",
    "Covariance",
    "DiscreteSchedule",
    "DivergenceWeight",
    "DreamTimeTimesteps",
    "EDMSchedule",
    "FlowSchedule",
    "FlowWeight",
    "Guidance",
    "IntervalCFG",
    "LinearSchedule",
    "LogNormalTimesteps",
    "LogitNormalTimesteps",
    "MixturePosterior",
    "NoiseLevelTimesteps",
    "PerpNeg",
    "PolynomialTimesteps",
    "Prediction",
    "PredictionType",
    "ProjectedCFG",
    "RescaledCFG",
    "Schedule",
    "ShiftedTimesteps",
    "SigmaSquaredWeight",
    "SquareRootTimesteps",
    "StudentTTimesteps",
    "TimeBins",
    "TimeWeight",
    "TimestepSampler",
    "TwoStageTimesteps",
    "UniformTimesteps",
    "UniformWeight",
    "ViewPerpNeg",
    "ViewPrompts",
    "X0Weight",
    "diffused_mixture",
    "noise_like",
    "perp_neg",
    "predict_distinct",
]
