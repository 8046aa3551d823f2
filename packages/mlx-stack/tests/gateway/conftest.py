"""Makes the modules that run inside LiteLLM importable; they need nothing of it."""

import sys

from mlx_stack.gateway.litellm import HOOKS

sys.path.insert(0, str(HOOKS))
