"""Who used what, how fast it was next to what was predicted, and what was available."""

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from mlx_catalog import CatalogError
from mlx_gateway.usage import By, LedgerUsage, Price, RereadSum, parse_since, read_usage
from mlx_hwprobe import HwprobeError
from mlx_recommend import Estimate, RecommendError, Workload
from mlx_stack import planning, yaml_file
from mlx_stack.errors import InvalidFileError, StackError, UsageError
from mlx_stack.open_stack import OpenStack
from mlx_stack.stack import Tier


@dataclass(frozen=True, slots=True)
class Prediction:
    """What was predicted for a model's requests.

    Attributes:
        ttft_s: Until the first token of a prompt as long as theirs were on average; None where
            that is unknown.
        generation_tps: Decode speed after it, the same.
    """

    ttft_s: float | None
    generation_tps: float | None


@dataclass(frozen=True, slots=True)
class ReadAgain:
    """What was read again for one reason.

    Attributes:
        seconds: How long that took; None where neither measurement nor prediction says it.
        basis: "measured", or "predicted" where some of it is.
    """

    sum: RereadSum
    seconds: float | None
    basis: str | None

    def to_document(self) -> dict[str, object]:
        """The fields of the JSON answer."""
        return {
            "program": self.sum.program,
            "prefix": self.sum.prefix,
            "place": self.sum.place,
            "words": self.sum.words,
            "requests": self.sum.requests,
            "turns": self.sum.turns,
            "tokens": self.sum.tokens,
            "seconds": self.seconds,
            "seconds_basis": self.basis,
        }


@dataclass(frozen=True, slots=True)
class UsageReport:
    """The whole answer.

    Attributes:
        predictions: By model, for those that the stack serves; none where rows are something else.
        prices: By row of models, as the user gave them; empty where none were.
        read_again: What was read again and why, the most tokens first.
    """

    usage: LedgerUsage
    predictions: Mapping[str, Prediction]
    prices: Mapping[str, Price]
    read_again: tuple[ReadAgain, ...] = ()

    def cost(self, row: str | None = None) -> float | None:
        """What a row, or everything, would have cost; None where a price is missing."""
        return self.usage.cost(self.prices, row)

    def to_document(self) -> dict[str, object]:
        """The fields of the JSON answer."""
        return {
            **self.usage.to_document(self.prices),
            "predictions": {name: asdict(each) for name, each in self.predictions.items()},
            "read_again": [each.to_document() for each in self.read_again],
        }


def report_usage(
    opened: OpenStack,
    *,
    since: str,
    by: By,
    prices: Path | None = None,
    now: float | None = None,
) -> UsageReport:
    """What was used from `since` until now; reads only.

    Args:
        opened: The state folder.
        since: As `parse_since` has it.
        by: What the rows are told apart by.
        prices: A YAML file: for each model, what a million tokens cost.
        now: Seconds since the epoch; left out, the clock is asked.

    Raises:
        UsageError: When `since` isn't a time.
        InvalidFileError: When the prices make no sense.
        LedgerError: When the ledger can't be read.
    """
    now = time.time() if now is None else now
    try:
        begin = parse_since(since, now)
    except ValueError as error:
        hint = "Write 30m, 12h, 7d, 2w, or a date such as 2026-11-28."
        raise UsageError(f"{since!r} isn't a time.", hint=hint) from error
    known = {} if prices is None else _with_replicas(opened, load_prices(prices))
    usage = read_usage(opened.home.ledger, since=begin, until=now, by=by)
    return UsageReport(usage, _predictions(opened, usage), known, _read_again(opened, usage))


@dataclass(frozen=True, slots=True)
class TierPredictions:
    """What is to be expected of each tier's model; of none that nobody knows."""

    tiers: Mapping[str, Estimate]

    def to_document(self) -> dict[str, object]:
        """The fields of the JSON answer, each figure as `estimate` has it."""
        return {
            "tiers": {
                name: {
                    figure: None if speed is None else speed.to_document()
                    for figure, speed in (
                        ("prompt_tps", each.prompt_tps),
                        ("generation_tps", each.generation_tps),
                    )
                }
                for name, each in self.tiers.items()
            }
        }


def predict_tiers(opened: OpenStack) -> TierPredictions:
    """What is to be expected of the stack's tiers, measured by none of their own requests."""
    stack = opened.defined_stack
    found = {} if stack is None else {each.name: _estimate(opened, each) for each in stack.tiers}
    return TierPredictions({name: each for name, each in found.items() if each is not None})


def load_prices(path: Path) -> dict[str, Price]:
    """The prices in a YAML file.

    Raises:
        InvalidFileError: When there is none, or it says something else.
    """
    hint = (
        "It must say, for each model: {prompt: 0.05, completion: 0.40} (dollars per million "
        "tokens)."
    )
    try:
        return yaml_file.read(path, dict[str, Price], hint=hint)
    except OSError as error:
        raise InvalidFileError(path, str(error.strerror), hint=hint) from error


def _with_replicas(opened: OpenStack, prices: Mapping[str, Price]) -> dict[str, Price]:
    """The prices, and for each replica without one of its own that of its tier's model."""
    stack = opened.defined_stack
    there = {
        each.shown(tier.name): prices[tier.model]
        for tier in (() if stack is None else stack.tiers)
        for each in tier.replicas
        if tier.model in prices
    }
    return {**there, **prices}


def _predictions(opened: OpenStack, usage: LedgerUsage) -> dict[str, Prediction]:
    """What was to be expected of each model of the stack that has a row."""
    found: dict[str, Prediction] = {}
    stack = opened.defined_stack if usage.by is By.MODEL and usage.rows else None
    for tier in () if stack is None else stack.tiers:
        used = usage.rows.get(tier.model)
        if used is None:
            continue
        fresh = used.prompt_tokens - used.cached_tokens
        tokens = max(fresh // max(used.requests, 1), 1)
        expected = _estimate(opened, tier, tokens)
        if expected is not None:
            ttft_s, speed = expected.ttft_s, expected.generation_tps
            found[tier.model] = Prediction(
                None if ttft_s is None else round(ttft_s, 3),
                None if speed is None else round(speed.value, 2),
            )
    return found


def _read_again(opened: OpenStack, usage: LedgerUsage) -> tuple[ReadAgain, ...]:
    """What was read again, with the time that it took or must have taken."""
    stack = opened.defined_stack if usage.rereads else None
    tiers = {} if stack is None else {tier.model: tier for tier in stack.tiers}
    found: list[ReadAgain] = []
    for each in usage.rereads:
        seconds: float | None = each.seconds
        for model, tokens in each.untimed.items():
            a_turn = max(tokens // each.requests, 1)
            expected = _estimate(opened, tiers[model], a_turn) if model in tiers else None
            if seconds is None or expected is None or expected.prompt_tps is None:
                seconds = None
            else:
                seconds += tokens / expected.prompt_tps.value
        basis = None if seconds is None else "predicted" if each.untimed else "measured"
        found.append(ReadAgain(each, None if seconds is None else round(seconds, 1), basis))
    return tuple(found)


def _estimate(opened: OpenStack, tier: Tier, tokens: int = 1024) -> Estimate | None:
    """What is to be expected of a tier for prompts of that length; None where nobody knows."""
    with suppress(StackError, CatalogError, HwprobeError, RecommendError):
        return planning.estimate.estimate_model(
            opened,
            tier.model,
            quant=tier.quant,
            workload=Workload(context_tokens=tokens, speed_context_tokens=tokens),
            use_measured=False,
            read_hub=planning.estimate.ask_nobody,
        ).estimate
    return None
