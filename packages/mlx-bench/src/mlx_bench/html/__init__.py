"""A report as one self-contained HTML page."""

from mlx_bench.html.page import render_html

__all__ = ["render_html"]
