"""Score-distillation objectives: choices of slots of one gradient."""
