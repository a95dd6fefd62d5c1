"""One multimodal model for any subset of its modalities."""

__version__ = "0.1.0"
