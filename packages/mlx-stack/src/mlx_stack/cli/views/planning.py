"""Speeds, benchmarks and drafts of stacks, the same wherever they are shown."""

from typing import TYPE_CHECKING

import mlx_bench
from mlx_stack import bench, planning
from mlx_stack.cli.frame.output import Column, Output, Span
from mlx_stack.format import (
    describe_hardware,
    format_bytes,
    format_duration,
    format_seconds,
)

if TYPE_CHECKING:
    import mlx_recommend

_TINY_TPS = 10
_USUAL_BITS_S = 100_000_000
_VERDICT_COLOURS = {"PASS": "green", "WARN": "yellow", "FAIL": "red"}


def short_speed(speed: "mlx_recommend.Speed | None") -> str:
    """A speed for a table: `~94`, or `94` where it was measured or published; `?` if unknown."""
    if speed is None:
        return "?"
    mark = "~" if speed.basis == "estimate" else ""
    return f"{mark}{_format_tps(speed.value)}"


def long_speed(speed: "mlx_recommend.Speed | None") -> str:
    """A speed in full: `94 tokens/s (78-113, estimated)`."""
    if speed is None:
        return "unknown"
    value = f"{_format_tps(speed.value)} tokens/s"
    if speed.basis == "measured":
        return f"{value} (measured on this machine)"
    word = "published for such a machine" if speed.basis == "reference" else "estimated"
    return f"{value} ({_format_tps(speed.low)} to {_format_tps(speed.high)}, {word})"


def range_of(speed: "mlx_recommend.Speed | None") -> str:
    """A computed speed for a table: `94 (78 to 113)`; `?` if unknown."""
    if speed is None:
        return "?"
    return f"{_format_tps(speed.value)} ({_format_tps(speed.low)} to {_format_tps(speed.high)})"


def _format_tps(tps: float) -> str:
    """`7.4` or `128` tokens a second."""
    return f"{tps:.1f}" if tps < _TINY_TPS else f"{tps:,.0f}"


def show_estimate(output: Output, found: "planning.estimate.ModelEstimate") -> None:
    """Show the verdict, where the memory goes, and how fast the model would be."""
    show_model(output, found.model, describe_hardware(found.hardware.to_document()))
    expected = found.estimate
    if expected is None:
        output.answer("Nothing can be estimated.")
        return
    _show_fit(output, expected)
    if expected.shape.role.chats:
        output.facts([*_rows(expected), *_option_rows(found, expected)])
    else:
        output.facts(_rows_without_speed(expected))


def show_model(output: Output, model: "planning.estimate.DescribedModel", where: str) -> None:
    """Show what is estimated, and the note on it."""
    precision = model.quant or "an unknown precision"
    role = "" if model.role.chats else f" ({model.role})"
    output.answer((model.name, "bold"), f"{role} at {precision} on {where}")
    if model.note:
        output.answer(model.note, style="yellow")


def _show_fit(output: Output, expected: "mlx_recommend.Estimate") -> None:
    if expected.fits is None or expected.limit_bytes is None:
        output.answer("It isn't known whether it fits.", style="yellow")
        return
    total = format_bytes(expected.memory.total_bytes)
    limit = format_bytes(expected.limit_bytes)
    if expected.fits:
        output.answer(("It fits:", "green"), f" {total} of the {limit} that the GPU may use.")
    else:
        output.answer(
            ("It doesn't fit:", "red"), f" it takes {total}, and the GPU may use {limit}."
        )


def _rows(expected: "mlx_recommend.Estimate") -> list[tuple[str, str]]:
    memory, work = expected.memory, expected.workload
    requests = "1 request" if work.concurrency == 1 else f"{work.concurrency} requests"
    kv_cache = format_bytes(memory.kv_cache_bytes)
    rows = [
        ("Weights", format_bytes(memory.weights_bytes)),
        ("KV cache", f"{kv_cache} for {work.context_tokens:,} tokens, {requests}"),
        ("Prefix cache", format_bytes(memory.prefix_cache_bytes)),
        ("Recurrent state", format_bytes(memory.state_bytes)),
        ("Engine", format_bytes(memory.overhead_bytes)),
    ]
    rows = [(name, value) for name, value in rows if not value.startswith("0 MB")]
    rows.append(_process_row(memory))
    longest = expected.max_context_tokens
    if longest is not None:
        short = " (less than requested)" if longest < work.context_tokens else ""
        rows.append(("Longest context", f"{longest:,} tokens{short}"))
    rows.append(("Generation", long_speed(expected.generation_tps)))
    rows.append(("Prompt", long_speed(expected.prompt_tps)))
    if expected.ttft_s is not None:
        after = f"after a prompt of {work.tokens_in_speed:,} tokens"
        rows.append(("First token", f"{format_seconds(expected.ttft_s)} {after}"))
    return rows


def _option_rows(
    found: "planning.estimate.ModelEstimate", expected: "mlx_recommend.Estimate"
) -> list[tuple[str, str]]:
    """The same figures with what the model could do besides: nothing that no one measured."""
    rows: list[tuple[str, str]] = []
    if found.has_mtp_heads:
        rows.append(("With MTP", _with_mtp(expected)))
    cache = found.eight_bit_cache
    if cache is not None:
        now, then = format_bytes(cache.plain_bytes), format_bytes(cache.conversation_bytes)
        known = "safe" if cache.facts.safe else "not safe"
        rows.append(("8-bit KV cache", f"{then} instead of {now} for each conversation; {known}"))
    return rows


def _with_mtp(expected: "mlx_recommend.Estimate") -> str:
    """`16 to 72 tokens/s (44 to 83 % of drafts right elsewhere)`, or what was measured here."""
    speed, drafts = expected.mtp_tps, expected.shape.drafts
    if expected.workload.concurrency > 1:
        return "as without: the engine drafts for one request only"
    if speed is None:
        return "unknown: no one measured how often its drafts are right"
    if speed.basis == "measured" or drafts is None:
        return long_speed(speed)
    low, high = round(drafts.low * 100), round(drafts.high * 100)
    share = f"{low} to {high} %" if low != high else f"{low} %"
    figures = f"{_format_tps(speed.low)} to {_format_tps(speed.high)}"
    return f"{figures} tokens/s ({share} of drafts right elsewhere)"


def _rows_without_speed(expected: "mlx_recommend.Estimate") -> list[tuple[str, str]]:
    """What a model that doesn't chat takes: it keeps no context, and its speed isn't estimated."""
    memory = expected.memory
    rows = [("Weights", format_bytes(memory.weights_bytes))]
    if memory.total_bytes is not None:
        rows.append(("Engine", f"{format_bytes(memory.overhead_bytes)} while it reads"))
    return [*rows, _process_row(memory)]


def _process_row(memory: "mlx_recommend.MemoryUse") -> tuple[str, str]:
    return "Process", f"{format_bytes(memory.process_bytes)} beyond what the GPU needs"


def show_draft(output: Output, draft: "planning.init.Draft") -> None:
    """Show the tiers, on stdout, and what there is to say about them, on stderr."""
    columns = [
        Column("Tier"),
        Column("Model", folds=True),
        Column("Quant"),
        *(Column(name, right=True) for name in ("Memory", "Context", "Tok/s", "Port")),
        Column("Download", right=True),
    ]
    rows: list[list[Span]] = []
    for each in draft.tiers:
        tier = each.tier
        rows.append(
            [
                (tier.name, "cyan"),
                tier.model,
                tier.quant or "?",
                format_bytes(each.memory_bytes),
                f"{tier.context_tokens:,}" if tier.context_tokens is not None else "",
                short_speed(each.generation_tps) if each.generation_tps is not None else "",
                str(tier.port),
                "here" if each.is_present else format_bytes(each.download_bytes),
            ]
        )
    output.table(columns, rows)
    if draft.budget_bytes is not None and draft.total_bytes is not None:
        together, budget = format_bytes(draft.total_bytes), format_bytes(draft.budget_bytes)
        output.say(f"In total, {together} of the budget of {budget}.")
    if draft.download_bytes:
        took = format_duration(draft.download_bytes * 8 / _USUAL_BITS_S)
        free = format_bytes(draft.free_disk_bytes)
        output.say(
            f"{format_bytes(draft.download_bytes)} to download, about {took} at 100 Mbit/s; "
            f"{free} of disk space is free."
        )
    for missing in draft.missing:
        why = planning.recommend.missing_text(missing)
        output.say((missing.tier, "yellow"), f": {why}")
    for note in draft.notes:
        label = "warning:" if note == draft.warning else "note:"
        output.say((label, "yellow"), f" {note}")


def show_benchmark(output: Output, result: "bench.measure.BenchResult") -> None:
    """The table, then the verdicts, then the tool call."""
    for line in mlx_bench.render_table(result.report).splitlines():
        output.text(line)
    if result.speeds or result.tools is not None:
        output.text("")
    for check in result.speeds:
        _show_verdict(output, check.verdict.value, bench.verdict.in_words(check))
    if result.tools is not None:
        verdict = "PASS" if result.tools.ok else "FAIL"
        _show_verdict(output, verdict, f"Tool calling: {result.tools.detail}")


def show_agents(output: Output, result: "bench.measure.AgentsResult") -> None:
    """The table turn by turn, and what it comes to."""
    for line in mlx_bench.render_agents_table(result.report).splitlines():
        output.text(line)


def show_role(output: Output, result: "bench.measure.RoleResult") -> None:
    """The table, load by load."""
    for line in mlx_bench.render_role_table(result.report).splitlines():
        output.text(line)


def show_check(output: Output, result: "bench.check.CheckResult") -> None:
    """What is wrong, with what came instead; then the verdict in a line."""
    report = result.report
    for case in report.cases:
        if case.is_right is False:
            _show_verdict(output, "FAIL", f"{case.id} {case.kind}")
            output.answer(f"      should be: {case.right_answer}\n      was: {case.seen}")
        elif case.is_right is None or case.id in ("coherence", "needle"):
            verdict = "WARN" if case.is_right is None else "PASS"
            _show_verdict(output, verdict, f"{case.kind}: {case.seen}")
    output.answer((report.verdict, "green" if report.is_ready else "red"))


def show_tuning(output: Output, result: "bench.tune.TuneResult") -> None:
    """What was tried, with what became of it; what is left to try; and what is worth keeping."""
    by_candidate = {str(each[0].candidate): each for each in result.verdicts}
    for trial, verdict in by_candidate.values():
        if verdict is None:
            output.answer(("-    ", "dim"), f"{trial.candidate.words}: measured")
            continue
        wins = verdict.outcome == "wins"
        sign = ("✓    ", "green") if wins else ("✗    ", "dim")
        text = f"{trial.candidate.words}: {verdict.outcome}: {verdict.words}"
        output.answer(sign, text)
    for candidate in result.left:
        output.answer(("…    ", "dim"), f"{candidate.words}: not tried yet")
    if not result.is_finished:
        left = result.left_s
        eta = f", about {max(1, round(left / 60))} min" if left is not None else ""
        output.answer(f"{len(result.left)} trials are left{eta}.")
    elif result.best is None:
        output.answer(f"{result.subject.tier} is best as it is.")
    else:
        flags = ", ".join(f"{name}: {value}" for name, value in (result.vllm_flags or {}).items())
        done = "Written" if result.is_applied else "Worth keeping"
        output.answer((f"{done}: ", "green"), f"vllm_flags of {result.subject.tier}: {flags}")
        hint = "`mlx-stack up` restarts the tier with them."
        output.hint(hint if result.is_applied else "The same with --apply writes them.")


def _show_verdict(output: Output, verdict: str, text: str) -> None:
    output.answer((f"{verdict:<5}", _VERDICT_COLOURS[verdict]), text)
