"""What whoever runs a gateway gives it, besides its settings."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from mlx_gateway.access import Hosts
from mlx_gateway.activation import Activator, NothingToStart
from mlx_gateway.engines import AskFor, HeadersFor, TlsFor
from mlx_gateway.in_flight import Mounted
from mlx_gateway.keys import KeyRing
from mlx_gateway.ledger import Ledger
from mlx_gateway.liveness import EngineTimeouts


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayOptions:
    """The parts and hooks of a gateway.

    Attributes:
        headers_for: What a request to an upstream must carry, by its root; asked each time.
        ask_for: What proves this side to an upstream, and it to us; asked for each connection.
        tls_for: By what an upstream with a certificate of its own is known.
        is_wedged: Whether whoever watches the upstream at a root found that it answers and
            delivers nothing; it gets no request then.
        wake: Wakes the machine of the node at a root; whether there is a way to do so.
        ledger: Where requests are noted; None notes them nowhere.
        sign_of_life_s: How long a stream may be silent before its client gets an event.
        header_prefix: How the names of the gateway's own headers begin.
        remote_images_by: What sets `remote_images`, in words.
        mounts: What answers everything below a path such as `/ui`, whoever asks: it checks keys
            itself.
        version: Of the settings in force, as the liveness probe shows it.
    """

    keys: KeyRing
    hosts: Hosts
    activator: Activator = field(default_factory=NothingToStart)
    headers_for: HeadersFor = lambda _: {}
    ask_for: AskFor = lambda _: None
    tls_for: TlsFor = lambda _: None
    is_wedged: Callable[[str], bool] = lambda _: False
    wake: Callable[[str], bool] = lambda _: False
    ledger: Ledger | None = None
    timeouts: EngineTimeouts = field(default_factory=EngineTimeouts)
    sign_of_life_s: float = 5.0
    header_prefix: str = "x-mlx-stack"
    remote_images_by: str = "`remote_images: true` in its settings"
    mounts: Mapping[str, Mounted] = field(default_factory=dict[str, Mounted])
    version: str = ""
