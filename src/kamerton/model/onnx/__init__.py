"""A voice as ONNX graphs: encoder, one decoder step and postnet, for serving on processors."""

from typing import Final

ENCODER: Final = "encoder.onnx"
STEP: Final = "step.onnx"
INT8_STEP: Final = "step.int8.onnx"
POSTNET: Final = "postnet.onnx"
FACTS: Final = "onnx.json"
FORMAT_VERSION: Final = 1
