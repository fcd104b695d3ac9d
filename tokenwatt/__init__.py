"""The meter for AI inference: tokens per joule and cost per token, live and to the joule."""

__version__ = "0.1.0"
