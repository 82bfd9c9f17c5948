"""The names under which training records its metrics: one spelling for every reader.

Trackers take any name. The ones here are read back by others (the tuner's objective, the stop
rules, Katib's collector), so the trainer and its readers both take them from this module.
"""

from typing import Final

# One training step.
TRAIN_LOSS: Final = "train_loss"  # the sum that is minimised
TRAIN_MEL_LOSS: Final = "train_mel_loss"
TRAIN_GATE_LOSS: Final = "train_gate_loss"
TRAIN_GUIDED_ATTENTION_LOSS: Final = "train_guided_attention_loss"
GRAD_NORM: Final = "grad_norm"  # before clipping
LEARNING_RATE: Final = "learning_rate"

# One evaluation on the validation split.
VAL_LOSS: Final = "val_loss"
VAL_MEL_LOSS: Final = "val_mel_loss"  # unweighted, comparable between trials
VAL_GATE_LOSS: Final = "val_gate_loss"
GATE_F1: Final = "gate_f1"  # of the stop frame, in [0, 1]
ATTENTION_SCORE: Final = (
    "attention_alignment_score"  # calibrated guided mass D: 1 perfect, 0 uniform
)
ATTENTION_ENTROPY: Final = "attention_entropy"
ATTENTION_FOCUS: Final = "attention_focus"
ATTENTION_COVERAGE: Final = "attention_coverage"
MCD_DB: Final = "mcd_dtw"  # free-running, where an evaluation measures it
