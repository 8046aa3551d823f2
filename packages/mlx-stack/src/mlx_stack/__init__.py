"""An always-on local LLM server for Apple Silicon: several models, one endpoint."""

__version__ = "0.1.0"
