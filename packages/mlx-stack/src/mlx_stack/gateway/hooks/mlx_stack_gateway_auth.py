"""Runs inside LiteLLM, by its `custom_auth` hook: only the gateway's own key opens it.

Without a database LiteLLM answers a wrong key with 400 and a missing one with 500; clients expect
401 in their own error shape, and get it from the exception raised here. LiteLLM's environment
imports this file by way of PYTHONPATH; nothing of mlx-stack can be imported here.
"""

import os
import secrets

from fastapi import Request
from litellm.proxy._types import LitellmUserRoles, ProxyException, UserAPIKeyAuth

_KEY_VARIABLE = "LITELLM_MASTER_KEY"


async def authenticate(
    request: Request,  # noqa: ARG001 - LiteLLM passes it by name
    api_key: str | None,
) -> UserAPIKeyAuth:
    """Who is asking: the holder of the key, or nobody (401)."""
    given = (api_key or "").removeprefix("Bearer ").encode()
    if not secrets.compare_digest(given, os.environ[_KEY_VARIABLE].encode()):
        problem = "No API key was given." if not given else "The API key is wrong."
        raise ProxyException(
            message=f"{problem} `mlx-stack env` prints the right one.",
            type="invalid_request_error",
            param=None,
            code=401,
            openai_code="invalid_api_key",
        )
    return UserAPIKeyAuth(
        api_key="gateway", user_id="gateway", user_role=LitellmUserRoles.INTERNAL_USER
    )
