"""Runs agents against an endpoint, one thread an agent, and keeps every turn."""

import queue
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial

import msgspec

import mlx_bench
from mlx_bench.agents.cautions import find_agent_cautions
from mlx_bench.agents.conversation import Conversation
from mlx_bench.agents.metrics import AgentTurn, measure_turn
from mlx_bench.agents.report import (
    AgentsReport,
    fairness,
    summarize_turns,
    throughput_tps,
    total_tokens,
)
from mlx_bench.agents.workload import TOOLS, AgentParameters, AgentTexts
from mlx_bench.client import ReadLimit, StreamingClient
from mlx_bench.engine import identify_engine
from mlx_bench.errors import EndpointError
from mlx_bench.report import EngineVersion
from mlx_bench.request import ChatRequest
from mlx_bench.runner import Conditions, OnProgress
from mlx_bench.wave import quiet_interpreter, start_together
from mlx_bench.workload import PromptMaker, calibrate_prompts

type OnAgentsReport = Callable[[AgentsReport], None]
"""Called with the report so far after every turn that all agents have made."""


def run_agents(
    client: StreamingClient,
    parameters: AgentParameters,
    conditions: Conditions,
    *,
    on_report: OnAgentsReport = lambda _: None,
    on_progress: OnProgress = lambda _: None,
) -> AgentsReport:
    """The finished report of a benchmark of agents.

    All begin at once; each goes on as soon as it has its answer, whatever the others do.

    Args:
        on_report: Gets the unfinished report after every turn, so that a crash loses nothing.
        on_progress: Gets progress in words.

    Raises:
        ParametersError: The conversations don't fit the model's context, the prefix is shorter
            than the tools, or these are more agents than this machine has threads for.
        EndpointError: The server can't be reached or refuses, or no turn succeeded.
    """
    return _AgentsBenchmark(client, parameters, conditions, on_report, on_progress).run()


class _Cache(msgspec.Struct):
    tokens_saved: int | None = None


class _StatusPage(msgspec.Struct):
    """What vllm-mlx's page says of its cache since it started."""

    cache: _Cache | None = None


@dataclass(slots=True)
class _AgentsBenchmark:
    client: StreamingClient
    parameters: AgentParameters
    conditions: Conditions
    on_report: OnAgentsReport
    on_progress: OnProgress
    prompts: PromptMaker = field(default_factory=PromptMaker)
    engine: EngineVersion = field(default_factory=EngineVersion)
    has_tools: bool = True
    runs: list[AgentTurn] = field(default_factory=list[AgentTurn])
    saved_tokens: int | None = None
    cpu_share: float = 0.0
    started_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    def run(self) -> AgentsReport:
        self.parameters.require_context(self.context_tokens())
        texts = self.fit()
        with quiet_interpreter():
            self.work(texts)
        if all(run.error is not None for run in self.runs):
            raise EndpointError(
                f"None of {self.parameters.agents} agents got an answer: {self.runs[0].error}.",
                url=self.client.endpoint.completions_url,
            )
        report = self.report(finished=True)
        self.on_report(report)
        return report

    def context_tokens(self) -> int | None:
        """The context as planned, else as the server lists it, else None."""
        planned = self.conditions.context_tokens
        return planned if planned is not None else self.client.listed_context_tokens()

    def fit(self) -> AgentTexts:
        """Learn the server's dialect and its count, and make texts of the length asked for."""
        self.on_progress("Finding out how the server counts tokens")
        # An agent's answer ends where the model ends it.
        self.client.dialect = replace(self.client.dialect, ignore_eos=False)
        server = ""

        def count(request: ChatRequest) -> int | None:
            nonlocal server
            exchange = self.client.negotiate(request, limit=ReadLimit())
            server = exchange.server
            usage = exchange.parse().usage
            return usage.prompt_tokens if usage else None

        def count_prompt(prompt: str) -> int | None:
            extra = self.conditions.request_extra
            return count(ChatRequest(prompt, 1, self.parameters.seed, extra=extra))

        self.prompts = calibrate_prompts(count_prompt)
        self.engine = self.conditions.engine or identify_engine(self.client, server)
        # Other words than the agents', so that no cache has seen what they begin with.
        seed = self.parameters.seed + 1
        probed = AgentTexts(msgspec.structs.replace(self.parameters, seed=seed), self.prompts)
        probe = Conversation.begin(probed, 0)
        dialect = self.client.dialect
        try:
            counted = count(self.request(probe, max_tokens=1))
        except EndpointError as error:
            if error.status is None:
                raise
            # It was the tools, not the optional fields that went first.
            self.has_tools, self.client.dialect = False, dialect
            counted = count(self.request(probe, max_tokens=1))
        return AgentTexts.fitted(self.parameters, self.prompts, counted)

    def request(self, conversation: Conversation, *, max_tokens: int) -> ChatRequest:
        tools: dict[str, object] = {"tools": TOOLS} if self.has_tools else {}
        return ChatRequest(
            "",
            max_tokens,
            self.parameters.seed,
            extra={**tools, **self.conditions.request_extra},
            messages=conversation.messages,
        )

    def work(self, texts: AgentTexts) -> None:
        """Let all agents go, and collect their turns until the last has ended."""
        agents = self.parameters.agents
        made: queue.SimpleQueue[AgentTurn | None] = queue.SimpleQueue()
        conversations = [Conversation.begin(texts, agent) for agent in range(agents)]
        saved_before = self.tokens_saved()
        begun_ns, cpu_ns = time.perf_counter_ns(), time.process_time_ns()
        start_together([partial(self.converse, each, begun_ns, made.put) for each in conversations])
        told = 0
        while agents:
            turn = made.get()
            if turn is None:
                agents -= 1
                continue
            self.runs.append(turn)
            self.on_progress(self.progress())
            complete = self.complete_turns()
            if told < complete < self.parameters.turns:
                told = complete
                self.on_report(self.report(finished=False))
        passed_ns = time.perf_counter_ns() - begun_ns
        self.cpu_share = (time.process_time_ns() - cpu_ns) / max(passed_ns, 1)
        self.saved_tokens = _difference(saved_before, self.tokens_saved())

    def converse(
        self,
        conversation: Conversation,
        begun_ns: int,
        made: Callable[[AgentTurn | None], None],
    ) -> None:
        """One agent's whole conversation, in its own thread; None says that it has ended."""
        before: AgentTurn | None = None
        limit = self.parameters.generation_tokens
        try:
            while conversation.turn <= self.parameters.turns:
                saved = self.tokens_saved_alone()
                exchange = self.client.stream(self.request(conversation, max_tokens=limit))
                completion = exchange.parse()
                before = measure_turn(
                    exchange,
                    completion,
                    agent=conversation.agent,
                    turn=conversation.turn,
                    requested_tokens=limit,
                    begun_ns=begun_ns,
                    before=before,
                    saved_tokens=_difference(saved, self.tokens_saved_alone()),
                )
                made(before)
                if before.error is not None:
                    return
                conversation = conversation.after(completion.answer)
        finally:
            made(None)

    def tokens_saved(self) -> int | None:
        """What the engine's cache has answered since it started, as far as its page says."""
        url = f"{self.client.endpoint.base_url.rstrip('/')}/status"
        page = self.client.get(url, _StatusPage)
        return page.cache.tokens_saved if page and page.cache else None

    def tokens_saved_alone(self) -> int | None:
        """The same where it is of one turn's request: where no other agent asks meanwhile."""
        return self.tokens_saved() if self.parameters.agents == 1 else None

    def complete_turns(self) -> int:
        """So many turns has every agent made that is still at work."""
        ended = {run.agent for run in self.runs if run.error is not None}
        going = set(range(self.parameters.agents)) - ended
        return min(
            (sum(run.agent == agent for run in self.runs) for agent in going),
            default=self.parameters.turns,
        )

    def progress(self) -> str:
        asked = self.parameters
        return f"{len(self.runs)} of {asked.agents * asked.turns} turns"

    def report(self, *, finished: bool) -> AgentsReport:
        runs = sorted(self.runs, key=lambda run: (run.turn, run.agent))
        totals = total_tokens(runs, self.saved_tokens)
        return AgentsReport(
            bench_version=mlx_bench.__version__,
            target=self.conditions.target,
            model=self.client.endpoint.model,
            agents=self.parameters.agents,
            engine=self.engine,
            parameters=self.parameters,
            prompt_exactness=self.prompts.exactness,
            machine=self.conditions.machine,
            started_at=self.started_at,
            finished=finished,
            turns=summarize_turns(runs, seed=self.parameters.seed),
            throughput_tps=throughput_tps(runs),
            fairness=fairness(runs, self.parameters.turns),
            totals=totals,
            cautions=find_agent_cautions(
                runs,
                self.parameters,
                self.prompts.exactness,
                totals=totals,
                concurrency=self.conditions.concurrency,
                has_tools=self.has_tools,
                cpu_share=self.cpu_share,
            ),
            runs=tuple(runs),
            extra=self.conditions.report_extra,
        )


def _difference(before: int | None, after: int | None) -> int | None:
    """How far a counter moved; one that was reset meanwhile tells nothing."""
    return after - before if before is not None and after is not None and after >= before else None
