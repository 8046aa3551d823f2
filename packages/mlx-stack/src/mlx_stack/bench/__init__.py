"""Measuring: what is measured, how, and what to think of it."""
