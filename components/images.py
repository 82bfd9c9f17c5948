"""Names of the container images, fixed when the pipeline is compiled.

`KAMERTON_IMAGE_DATA`, `KAMERTON_IMAGE_TRAIN` and `KAMERTON_IMAGE_SERVE` replace the default names;
give them as `repository@sha256:…`, since Kubeflow's cache takes a moved tag for the same image.
"""

import os
import re

from kamerton import __version__

_DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")


def reference(name: str) -> str:
    """The image for one of `data`, `train` and `serve`."""
    return os.environ.get(f"KAMERTON_IMAGE_{name.upper()}") or f"kamerton-{name}:{__version__}"


def is_pinned(image: str) -> bool:
    """Whether the reference can only ever mean one image."""
    return _DIGEST.search(image) is not None


DATA = reference("data")
TRAIN = reference("train")
