"""What embeddings depend on, as a name; light, because it is asked for before anything heavy is loaded."""

from __future__ import annotations

from pathlib import Path

from curate.config import Spec
from curate.workspace import file_digest


def embedding_tag(spec: Spec) -> str:
    """Names the backbone, the size of the pictures, whether their mirror images count, and a file of weights.

    Example:
        >>> embedding_tag(Spec())
        'efficientnet_lite0@160'
    """
    options = spec.audit
    weights = Path(options.weights)
    content = f"+{file_digest(weights)[:8]}" if options.weights and weights.is_file() else ""
    mirror = "+mirror" if spec.augment.flip else ""
    return f"{options.backbone}@{options.image_size}{mirror}{content}"
