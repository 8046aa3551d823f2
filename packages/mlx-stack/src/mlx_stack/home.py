"""Where state lives: the only reader of `MLX_STACK_HOME`."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlx_procsup import StateDirs

HOME_VARIABLE = "MLX_STACK_HOME"
_DIRECTORY_MODE = 0o700


class Home:
    """The state folder and the places in it. Making one creates nothing on disk.

    Attributes:
        root: The state folder, absolute.
        profile: The detected hardware profile.
        config: The configuration; mode 0600, since it can hold an API key.
        credentials: The gateway's generated key; mode 0600.
        client_keys: The keys of named clients, as hashes; mode 0600.
        ledger: One row for each request, and the machine's events; mode 0600.
        nodes: The other Macs that take part, with our keys there; mode 0600.
        node: What this Mac proves itself with to others, and the code that pairs it; mode 0700.
        node_ca: The certificate of its authority, by which others know it.
        node_ca_key: Its private key; mode 0600.
        node_certificate: What it shows to whoever connects, signed by that authority.
        node_key: The private key of that; mode 0600.
        pairing: The code that is being shown; mode 0600.
        connections: What `connect` wrote into other programs' files.
        stack: The stack definition.
        gateway_settings: The gateway's generated settings.
        litellm_config: LiteLLM's generated configuration.
        models: The default folder of downloaded models; the `model-dir` key may name another.
        engines: The isolated environments of vllm-mlx and LiteLLM.
        pids: One PID file a service.
        run: What the PID files can't say, one JSON file a service.
        logs: Service logs and their archives.
        benchmarks: Saved benchmark results.
        catalog: The user's own catalog entries.
        conversation: The last conversation with `ask`, which `-c` continues; mode 0600.
        chat_history: The lines typed into the chat of `ask`; mode 0600.
        kept_prompts: What engines keep of conversations, one folder a tier; mode 0700.
        panics: Panics of this Mac, and which tier each is held against.
        page: What the page under `/ui/` has started, and the tokens that open it.
        setup_progress: How far an interrupted `setup` came.
        lock: Held by operations that change running services.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.profile = root / "profile.json"
        self.config = root / "config.yaml"
        self.credentials = root / "credentials.json"
        self.client_keys = root / "keys.json"
        self.ledger = root / "ledger.db"
        self.nodes = root / "nodes.yaml"
        self.node = root / "node"
        self.node_ca = self.node / "ca.pem"
        self.node_ca_key = self.node / "ca-key.pem"
        self.node_certificate = self.node / "certificate.pem"
        self.node_key = self.node / "key.pem"
        self.pairing = self.node / "pairing.json"
        self.connections = root / "connections.json"
        self.stack = root / "stacks" / "default.yaml"
        self.gateway_settings = root / "gateway.yaml"
        self.litellm_config = root / "litellm.yaml"
        self.models = root / "models"
        self.engines = root / "engines"
        self.pids = root / "pids"
        self.run = root / "run"
        self.logs = root / "logs"
        self.benchmarks = root / "benchmarks"
        self.catalog = root / "catalog"
        self.conversation = root / "conversation.json"
        self.chat_history = root / "chat_history"
        self.kept_prompts = root / "kept-prompts"
        self.panics = root / "panics.json"
        self.page = root / "page"
        self.setup_progress = root / "setup.json"
        self.lock = root / "lock"

    @property
    def state_dirs(self) -> "StateDirs":
        """Where the services' PID files, run files and logs are."""
        from mlx_procsup import StateDirs

        return StateDirs(pids=self.pids, run=self.run, logs=self.logs)

    def create(self) -> None:
        """Make the state folder, readable by its owner only, where it doesn't exist."""
        self.root.mkdir(mode=_DIRECTORY_MODE, parents=True, exist_ok=True)


def find_home(environment: Mapping[str, str] = os.environ) -> Home:
    """The state folder that the environment names, by default `~/.mlx-stack`."""
    named = environment.get(HOME_VARIABLE, "")
    root = Path(named).expanduser() if named else Path.home() / ".mlx-stack"
    return Home(root.absolute())
