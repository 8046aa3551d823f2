"""The stand-in hub, as huggingface_hub in its default setting sees it."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from stack_testkit.hub import HubServer, Settings, write_repository

pytestmark = pytest.mark.story

REPO = "example/Stored"
DOWNLOAD = "import sys, huggingface_hub; huggingface_hub.snapshot_download(*sys.argv[1:])"


@pytest.mark.parametrize("offers_xet", [True, False])
def test_huggingface_hub_gets_a_repository_over_xet_where_it_is_offered(
    tmp_path: Path, offers_xet: bool
):
    weights = random.Random(4).randbytes(70_000_000)  # more than one xorb
    write_repository(tmp_path / "hub", REPO, {"config.json": b"{}", "model.safetensors": weights})
    with HubServer(tmp_path / "hub", Settings(offers_xet=offers_xet)) as hub:
        variables = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0"}
        subprocess.run(
            (sys.executable, "-c", DOWNLOAD, REPO),
            env={**os.environ, **variables},
            check=True,
            capture_output=True,
        )
        took_xet = any(request.path.startswith("/xorbs/") for request in hub.requests)
    (downloaded,) = (tmp_path / "hf").glob("hub/models--*/snapshots/*/model.safetensors")
    assert downloaded.read_bytes() == weights
    assert took_xet == offers_xet
