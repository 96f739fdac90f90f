"""The demo: the bundled gallery, the loopback image-search server, and the simulated reviewer."""
