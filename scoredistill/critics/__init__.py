"""Models of the generator's own score."""

from scoredistill.critics.analytic import DiracCritic, ExactCritic, ParticleCritic
from scoredistill.critics.critic import Critic, TrainedPart
from scoredistill.critics.lora import LoRACritic
from scoredistill.critics.trained import NetworkCritic, TrainedCritic, reuse_forward

__all__ = [
    "Critic",
    "DiracCritic",
    "ExactCritic",
    "LoRACritic",
    "NetworkCritic",
    "ParticleCritic",
    "TrainedCritic",
    "TrainedPart",
    "reuse_forward",
]
