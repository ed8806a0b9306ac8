"""The laws that every part has to satisfy, as checks for classes outside the package.

from scoredistill.testing import check_objective

check_objective(MyLoss())
"""

from scoredistill.testing.critics import check_critic
from scoredistill.testing.divergences import check_divergence
from scoredistill.testing.generators import check_generator
from scoredistill.testing.guidance import check_guidance
from scoredistill.testing.objectives import check_objective
from scoredistill.testing.ratios import check_ratio
from scoredistill.testing.reference import ReferenceTeacher, WithPrediction
from scoredistill.testing.schedules import check_schedule
from scoredistill.testing.teachers import check_teacher
from scoredistill.testing.timesteps import check_timesteps
from scoredistill.testing.weights import check_time_weight

__all__ = [
    "ReferenceTeacher",
    "WithPrediction",
    "check_critic",
    "check_divergence",
    "check_generator",
    "check_guidance",
    "check_objective",
    "check_ratio",
    "check_schedule",
    "check_teacher",
    "check_time_weight",
    "check_timesteps",
]
