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
CLIP_NORM: Final = "clip_norm"  # the norm above which it is scaled down
LEARNING_RATE: Final = "learning_rate"
PHASE: Final = "phase"  # its index, from 0

# The machine, at the same steps. No two runs have these equal, so no comparison of runs and no
# report shows what stands below SYSTEM.
SYSTEM: Final = "system/"
FRAMES_PER_SECOND: Final = "system/frames_per_second"  # real mel frames, evaluations left out
PADDING_SHARE: Final = "system/padding_share"  # of the frames of the batches, 0 to 1
DATA_WAIT_SHARE: Final = "system/data_wait_share"  # of the time that steps waited for batches
MEMORY_MB: Final = "system/memory_mb"  # the most this process was resident, in MiB
DEVICE_MEMORY_MB: Final = "system/device_memory_mb"  # the most that tensors took on a GPU, in MiB

# One evaluation on the validation split, teacher-forced. Losses are unweighted means over frames,
# comparable between trials of other weights.
VAL_LOSS: Final = "val_loss"  # mel before and after the postnet, and gate
VAL_MEL_BEFORE_LOSS: Final = "val_mel_before_loss"
VAL_MEL_LOSS: Final = "val_mel_loss"  # after the postnet
VAL_GATE_LOSS: Final = "val_gate_loss"
VAL_GUIDED_ATTENTION_LOSS: Final = "val_guided_attention_loss"
GATE_RECALL: Final = "gate_recall"  # of the stop frame within one decoder step, in [0, 1]
GATE_PRECISION: Final = "gate_precision"
GATE_F1: Final = "gate_f1"
GATE_FRAMES_OFF: Final = "gate_frames_off"  # mean distance of the stop from the last frame
FORCED: Final = "forced_"  # before a name of attention: teacher-forced, over the whole split

# The same evaluation, free-running on fixed sentences: medians over them.
ATTENTION_SCORE: Final = (
    "attention_alignment_score"  # calibrated guided mass D: 1 perfect, 0 uniform
)
ATTENTION_ENTROPY: Final = "attention_entropy"
ATTENTION_FOCUS: Final = "attention_focus"
ATTENTION_COVERAGE: Final = "attention_coverage"
ATTENTION_MONOTONICITY: Final = "attention_monotonicity"
ALIGNED_SHARE: Final = "aligned_share"  # of the sentences
PREMATURE_STOPPING: Final = "premature_stopping"  # share that ends before its text does
RUNAWAY_SHARE: Final = "runaway_share"  # share that does not end by itself
MEL_VARIANCE_RATIO: Final = "mel_variance_ratio"  # spoken to recorded: less than 1 is blurred
SILENCE_SHARE: Final = "silence_share"  # of the frames spoken
RECORDED_SILENCE_SHARE: Final = "recorded_silence_share"  # of the same sentences, to compare
# Training logs no distortion: the tuner's objective takes it where a trial's record has it.
MCD_DB: Final = "mcd_dtw"  # free-running

# How the report and others sum up attention; each has a teacher-forced twin.
ATTENTION: Final = (
    ATTENTION_SCORE, ATTENTION_COVERAGE, ATTENTION_FOCUS, ATTENTION_ENTROPY,
    ATTENTION_MONOTONICITY, ALIGNED_SHARE,
)  # fmt: skip


def train_loss(part: str) -> str:
    """The name of one part of the training loss, unweighted."""
    return TRAIN_MEL_LOSS if part == "mel_after" else f"train_{part}_loss"


def weighted_loss(part: str) -> str:
    """The name of one part of the training loss as it counts in the sum."""
    return f"train_{part}_weighted"


def val_loss(part: str) -> str:
    """The name of one part of the validation loss."""
    return VAL_MEL_LOSS if part == "mel_after" else f"val_{part}_loss"


# The stop decision, at evaluations. Its votes are -1 (go on) to 1 (stop), times their confidence.
STOP_EVIDENCE: Final = "stop/evidence"  # the weighted mean of the votes
STOP_PATIENCE: Final = "stop/patience"  # steps without anything better that are borne
STOP_WAITED: Final = "stop/waited"  # steps since the best
STOP_REMAINING: Final = "stop/remaining"  # steps until nothing better is to be expected
STOP_SCORE: Final = "stop/score/"  # before the name of a voter
OVERFITTING_RISK: Final = "overfitting_risk"  # 0 to 1: low below .3, high from .6


def stop_score(voter: str) -> str:
    """The name of one voter's score."""
    return f"{STOP_SCORE}{voter}"
