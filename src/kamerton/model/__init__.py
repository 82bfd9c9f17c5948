"""Tacotron 2, its losses and the exported voice."""

# Names in the folder of an exported voice; here, so that they are known without torch.
WEIGHTS_FILE = "best_model.safetensors"
DESCRIPTION_FILE = "model.json"
