"""Does the watchdog ever shoot an honest prefill, and how late does it find a dead one?

    uv run python benchmarks/delivery_prefills.py [--count 1000] [--seed 1]

A simulation, on the rule that the watchdog runs (`mlx_procsup.delivery`) and on what it predicts
(`mlx_stack.services.delivery.predictor`), looked at as often and as late as it does. What is real
are the speeds: each case takes a model and a Mac with a published prefill measurement, and its
engine is as much faster or slower than predicted as that measurement was against constants that
were fitted without its publisher. What is made up: the length of the
prompt, and that the Mac does other things as well (everything takes up to 1.5 times as long, and
stands still now and then), that a second engine computes at the same time in a third of the cases
(twice as long), and that a client leaves and comes back in a tenth.

In the second half each engine dies somewhere in the same work.
"""

import argparse
import math
import random
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from recommend_calibrate import leaving_out
from recommend_measurements import Row, measurements

from mlx_hwprobe import parse_hardware_spec
from mlx_procsup import AnswerKind, DeliveryRule, RequestInFlight, TokenAnswer, Work
from mlx_procsup.testing.pretended import watch_pretended
from mlx_recommend.calibration import Calibration
from mlx_recommend.speed import prefill_speed
from mlx_stack.services.delivery import predictor

type Unseen = Callable[[Row], Calibration]

RULE = DeliveryRule()
SHORTEST, LONGEST = 8_000, 131_072
STARTS_AT_S = 40.0
WRITES_FOR_S, WRITES_TPS = 60.0, 5
LIMIT_S = 15.0


@dataclass(frozen=True)
class Case:
    """One prompt, how long it honestly takes, and what happens to it.

    Attributes:
        reads_s: From its first token to its last.
        leaves_s: When its client gives up and asks again; None for never.
        dies_s: When the engine dies, from the start of the prompt on; infinity for never.
    """

    row: Row
    tokens: int
    reads_s: float
    sharing: int
    leaves_s: float | None
    dies_s: float

    @property
    def ends_at(self) -> float:
        """When the prompt is read."""
        return STARTS_AT_S + self.reads_s + (self.leaves_s or 0.0)

    def work(self, at: float) -> Work:
        """What a text engine says: nothing of a prefill before its first token."""
        since_s = at - STARTS_AT_S
        if since_s < 0:
            return Work(written=100)
        name = "again" if self.leaves_s is not None and since_s >= self.leaves_s else "first"
        alive_until = min(since_s, self.dies_s)
        written = max(alive_until - (self.ends_at - STARTS_AT_S), 0.0) * WRITES_TPS
        if self.dies_s == math.inf and at >= self.ends_at + WRITES_FOR_S:
            return Work(written=100 + int(WRITES_FOR_S * WRITES_TPS))
        running = (RequestInFlight(name, self.tokens, written=int(written)),)
        return Work(running, written=100, oldest_s=since_s)

    def ask(self, at: float) -> tuple[float, TokenAnswer]:
        """A question waits behind the prompt; a dead engine leaves it."""
        if at - STARTS_AT_S >= self.dies_s:
            return math.inf, TokenAnswer(AnswerKind.NOTHING)
        return max(self.ends_at - at, 0.0) + 0.5, TokenAnswer(AnswerKind.TOKEN)


def honest_speed(row: Row, tokens: int, unseen: Calibration) -> float | None:
    """Tokens a second: as predicted for this length, and as wrong as constants without this row."""
    at_row = prefill_speed(
        row.shape, row.machine, prompt_tokens=row.prompt_tokens, constants=unseen
    )
    here = prefill_speed(row.shape, row.machine, prompt_tokens=tokens)
    if at_row is None or here is None or not row.prompt_tps:
        return None
    return here.value * row.prompt_tps / at_row.value


def make_case(rng: random.Random, rows: list[Row], unseen: Unseen, *, dies: bool) -> Case:
    """A case with everything that is made up."""
    while True:
        row = rng.choice(rows)
        tokens = round(math.exp(rng.uniform(math.log(SHORTEST), math.log(LONGEST))))
        speed = honest_speed(row, tokens, unseen(row))
        if speed is not None:
            break
    sharing = 2 if rng.random() < 1 / 3 else 1
    stalls_s = sum(rng.uniform(0, 20) for _ in range(rng.choice((0, 0, 1, 2))))
    reads_s = tokens / speed * sharing * rng.uniform(1.0, 1.5) + stalls_s
    leaves_s = rng.uniform(0.1, 0.9) * reads_s if rng.random() < 0.1 else None
    dies_s = rng.uniform(0, reads_s + WRITES_FOR_S) if dies else math.inf
    return Case(row, tokens, reads_s, sharing, leaves_s, dies_s)


def predicted(case: Case) -> Callable[[int | None], float]:
    """What the watchdog predicts on this Mac."""
    hardware = parse_hardware_spec(case.row.hardware_spec)
    return predictor(case.row.shape, hardware, LONGEST)


def due_at(case: Case, predict_s: Callable[[int | None], float]) -> float:
    """When the rule itself says that the dead engine's time is over, looked at all the time."""
    died_at, read_at = STARTS_AT_S + case.dies_s, case.ends_at
    if int((died_at - read_at) * WRITES_TPS) > 0:  # while it wrote: counted from the last token
        return died_at + RULE.floor_s
    prompts = 2 if case.leaves_s is not None else 1
    return STARTS_AT_S + RULE.floor_s + prompts * predict_s(case.tokens) * case.sharing


def main() -> int:
    """Both halves; 0 if nothing was shot and nothing found late."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    rows = [row for row in measurements() if row.prompt_tps and row.concurrency == 1]
    unseen = leaving_out(measurements(), lambda row: row.publisher)
    began = time.monotonic()

    def late() -> float:
        return rng.choice((0.0, 0.0, 0.0, rng.uniform(0, 1)))

    killed, honest = 0, [make_case(rng, rows, unseen, dies=False) for _ in range(options.count)]
    for case in honest:
        predict_s = predicted(case)
        found = watch_pretended(
            case,
            case.ends_at + WRITES_FOR_S + 400,
            predict_s,
            sharing=case.sharing,
            lateness_s=late,
        )
        if found.wedged_at is not None:
            killed += 1
            print(f"shot: {case.row.model} on {case.row.chip}, {case.tokens} tokens, "
                  f"{case.reads_s:.0f} s: {found.reason}")  # fmt: skip
    lengths = sorted(case.reads_s for case in honest)
    print(
        f"{options.count} honest prefills of {len(rows)} measured pairs, {SHORTEST} to "
        f"{LONGEST} tokens: {statistics.median(lengths):.0f} s in the median, "
        f"{lengths[-1] / 3600:.1f} h at most; {killed} shot"
    )
    lateness: list[float] = []
    missed = 0
    for _ in range(options.count):
        case = make_case(rng, rows, unseen, dies=True)
        predict_s = predicted(case)
        due = due_at(case, predict_s)
        found = watch_pretended(case, due + 600, predict_s, sharing=case.sharing, lateness_s=late)
        if found.wedged_at is None:
            missed += 1
        else:
            lateness.append(found.wedged_at - due)
    lateness.sort()
    middle, last = statistics.median(lateness), lateness[-1]
    print(
        f"{options.count} dead engines: {missed} missed; found {middle:+.1f} s after the end of "
        f"their grace in the median, {last:+.1f} s at the latest (limit {LIMIT_S:.0f} s)"
    )
    print(f"in {time.monotonic() - began:.0f} s")
    return 1 if killed or missed or lateness[-1] > LIMIT_S else 0


if __name__ == "__main__":
    sys.exit(main())
