"""Which Apple Silicon chip is this, how fast is its memory, and how much of it may the GPU use?"""

__version__ = "0.1.0"
