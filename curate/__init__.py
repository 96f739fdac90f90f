"""curate: from a messy pile of images to a clean, proven data set."""
