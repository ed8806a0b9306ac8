"""Strategies for several processes, as values of trainer.strategy: split_particles and fsdp2."""
