"""Runs inside LiteLLM: keeps the gateway closed, engines in or out of rotation, its config fresh.

LiteLLM imports `plugin` by way of PYTHONPATH, in an environment where nothing of mlx-stack is
installed. `guard` and `health` know nothing of LiteLLM.
"""
