"""The real engine when its generation thread stops: its server answers, and no token comes."""

import os
import signal
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from mlx_catalog import ModelRole
from mlx_procsup import (
    DeliveryRule,
    RestartPolicy,
    StartPlan,
    Supervised,
    Watchdog,
    WatchEvent,
    WatchSettings,
    Work,
    read_pid,
    stop_service,
)
from mlx_procsup.http_probe import PendingPoll
from mlx_procsup.service import bring_up
from mlx_procsup.testing import eventually
from mlx_stack.engines.environment import Environment
from mlx_stack.engines.vllm_mlx import Serving
from mlx_stack.home import Home
from mlx_stack.open_stack import OpenStack
from mlx_stack.services.delivery import EngineDelivery, predictor
from mlx_stack.services.engine_door import request_proof
from mlx_stack.services.ports import free_ports
from mlx_stack.services.proof import proof_of
from mlx_stack.services.service import engine_service
from mlx_stack.stack import Tier
from stack_testkit import blocked_engine

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

RULE = DeliveryRule(
    idle_look_s=1.0,
    busy_look_s=0.5,
    ask_look_s=0.5,
    floor_s=8.0,
    first_s=60.0,
    doubt_s=5.0,
    ask_every_s=None,
)
PROOF = proof_of(ModelRole.CHAT)
LOADED_WITHIN_S = 300.0
FOUND_WITHIN_S = 120.0


@pytest.mark.parametrize("batches", [True, False])
def test_an_engine_whose_generation_thread_is_blocked_is_found_and_restarted(
    vllm_mlx_environment: Environment, tiny_model: Path, tmp_path: Path, *, batches: bool
) -> None:
    home = Home(tmp_path / "home")
    home.create()
    (port,) = free_ports(1)
    tier = Tier(
        name="standard",
        model="tiny",
        quant=None,
        source=str(tiny_model),
        port=port,
        vllm_flags={},
        context_tokens=4096,
        concurrency=2 if batches else 1,
    )
    service = engine_service(
        OpenStack(home), tier, tiny_model, Serving(batching=batches), engine=vllm_mlx_environment
    )
    start, rest = service.spec.command[:3], service.spec.command[3:]
    spec = replace(service.spec, command=(*start, blocked_engine.__file__, *rest))
    readiness = spec.readiness
    assert readiness is not None
    # a streamed answer is seen without batching, too; the question comes in one piece
    predict_s = predictor(None, None, 4096)
    check = EngineDelivery(
        readiness,
        "tiny",
        PROOF,
        batches=batches,
        predict=lambda size: 1.0 if size is None else predict_s(size),
    )
    events: list[WatchEvent] = []
    dirs, stop = home.state_dirs, threading.Event()
    settings = WatchSettings(
        lock=home.lock, interval_s=5.0, restart=RestartPolicy(delay_s=0.5), delivery=RULE
    )
    watchdog = Watchdog(
        dirs, settings, lambda: [Supervised(spec, delivery=check, silence_s=90.0)], events.append
    )
    watching = threading.Thread(target=watchdog.run, args=(stop.wait,))
    try:
        result = bring_up(StartPlan(spec), dirs, LOADED_WITHIN_S)
        assert result.error is None, result.error
        assert request_proof(readiness, "tiny", PROOF, timeout_s=120.0)[0] == 200
        work = check.look()
        assert isinstance(work, Work)
        assert (work.in_flight, work.written > 0) == (0, True)
        watching.start()

        before = read_pid(dirs, "standard")
        assert before is not None
        os.kill(before, signal.SIGUSR1)
        threading.Thread(target=check.ask, args=(300.0,), daemon=True).start()
        assert eventually(lambda: getattr(check.look(), "in_flight", 0) > 0, 30.0)
        assert PendingPoll(readiness, 10.0).finish().ok  # as ever
        assert eventually(lambda: any(e.what == "wedged" for e in events), FOUND_WITHIN_S)
        assert eventually(lambda: any(e.what == "recovered" for e in events), LOADED_WITHIN_S)
        assert read_pid(dirs, "standard") not in (None, before)
        assert request_proof(readiness, "tiny", PROOF, timeout_s=120.0)[0] == 200
        (wedged,) = [event.reason for event in events if event.what == "wedged"]
        assert "made no progress" in wedged
    finally:
        stop.set()
        if watching.is_alive():
            watching.join()
        stop_service("standard", dirs, 1.0)
