"""The nouns, contracts, plugin manager and runner of crossmed. It never imports a plugin, and stays free of torch."""

from crossmed_core.hookspecs import API_VERSION, hookimpl

__version__ = "0.1.0"

__all__ = ["API_VERSION", "__version__", "hookimpl"]
