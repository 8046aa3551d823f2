"""What fits a Mac's memory and how fast it runs: pure arithmetic, with its error in the open."""

__version__ = "0.1.0"
