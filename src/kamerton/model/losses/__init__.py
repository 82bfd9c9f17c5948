"""What the acoustic model is trained to make small."""

from kamerton.model.losses.objective import Losses, Objective, Target, losses_of

__all__ = ["Losses", "Objective", "Target", "losses_of"]
