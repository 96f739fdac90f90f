"""fastai and torch: decoded cache, embeddings, out-of-fold predictions, training. Imported only when used."""
