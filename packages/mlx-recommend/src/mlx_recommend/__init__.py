"""What fits a Mac's memory and how fast it runs: pure arithmetic over a model's geometry and a machine's bandwidth."""

__version__ = "0.1.0"
