"""Models of the generator's own score."""

from scoredistill.critics.base import Critic
from scoredistill.critics.dirac import DiracCritic
from scoredistill.critics.exact import ExactCritic
from scoredistill.critics.lora import LoRACritic
from scoredistill.critics.network import NetworkCritic
from scoredistill.critics.particles import ParticleCritic
from scoredistill.critics.trained import TrainedCritic, sharing

__all__ = [
    "Critic",
    "DiracCritic",
    "ExactCritic",
    "LoRACritic",
    "NetworkCritic",
    "ParticleCritic",
    "TrainedCritic",
    "sharing",
]
