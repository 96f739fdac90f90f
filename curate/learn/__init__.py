"""fastai and torch: decoded cache, embeddings, out-of-fold predictions, training. Imported only when used."""

import warnings

# fastai decorates with torch.jit.script when it is imported; nothing that whoever runs curate could do about it.
warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated", category=FutureWarning)
