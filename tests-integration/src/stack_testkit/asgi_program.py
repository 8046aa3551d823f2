"""How programs that stand for engines listen."""

from typing import Any

import uvicorn
import uvicorn.server


def serve(application: Any, host: str, port: int) -> None:
    """Answer requests until a signal comes, which ends it at once, whatever it answers."""
    uvicorn.server.HANDLED_SIGNALS = ()
    uvicorn.run(
        application,
        host=host,
        port=port,
        http="h11",
        loop="asyncio",
        lifespan="off",
        log_level="info",
    )
