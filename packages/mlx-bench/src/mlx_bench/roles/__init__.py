"""Benchmarks of what doesn't chat: one module a role, and what runs and shows any of them."""
