"""Training of networks: the only part of the core that imports torch."""
