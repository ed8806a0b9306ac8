"""How several processes train together, as values of trainer.strategy: split_particles and fsdp2."""
