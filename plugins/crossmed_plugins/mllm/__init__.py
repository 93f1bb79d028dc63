"""Multimodal large language models, through transformers."""
