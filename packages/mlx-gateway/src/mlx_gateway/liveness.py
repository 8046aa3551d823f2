"""Whether an engine lives, decided from what was heard of it and when. Pure: the clock is given.

No timeout tells a busy engine from a hung one, since the prefill of a long prompt takes minutes.
But a busy engine answers a small question meanwhile, and a hung one doesn't. Engines that read
prompts on the thread that answers are the exception, and are given more time.
"""

from dataclasses import dataclass, replace

NEVER = float("-inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineTimeouts:
    """How long an engine may be silent.

    Attributes:
        soon_s: How long a request hears nothing before its engine is asked the small question.
        silence_s: How often it is asked from then on. An engine that was heard within this time is
            not asked.
        lost_s: How often one that was lost is asked.
        question_s: An engine that leaves the small question unanswered for so long gets no new
            request until it answers again.
        in_flight_s: A request is given up when its engine has said nothing at all, to anyone, for
            so long. Longer than `question_s`, since work is lost with it.
        cutting_bytes_per_s: How fast the slowest engine cuts a prompt into tokens, which it does on
            the thread that answers; a new request waits so much longer for its first sign.
        vocabulary_s: How much longer it waits where the answer must have a form: before its first
            one, vllm-mlx reads the model's whole vocabulary on that thread.
    """

    soon_s: float = 0.05
    silence_s: float = 1.0
    lost_s: float = 0.5
    question_s: float = 3.0
    in_flight_s: float = 60.0
    cutting_bytes_per_s: float = 200_000.0
    vocabulary_s: float = 30.0


@dataclass(frozen=True, slots=True)
class EngineLife:
    """What is known of one engine.

    Attributes:
        heard_at: When it last said anything.
        hangs: Whether it left the last question unanswered.
        is_gone: Whether it was lost, and has not answered since.
    """

    heard_at: float = NEVER
    hangs: bool = False
    is_gone: bool = False

    @property
    def is_up(self) -> bool:
        """Whether it is worth a request."""
        return not self.hangs and not self.is_gone

    def unanswered(self, asked_at: float) -> "EngineLife":
        """The engine after a question of `asked_at` was left unanswered for too long."""
        return self if self.heard_at > asked_at else replace(self, hangs=True)

    def needs_question(self, now: float, timeouts: EngineTimeouts) -> bool:
        """Whether nobody knows if it lives."""
        return not self.is_up or now - self.heard_at >= timeouts.silence_s

    def asked_every_s(self, timeouts: EngineTimeouts) -> float:
        """How long after the beginning of one question it is time for the next."""
        return timeouts.lost_s if self.is_gone else timeouts.silence_s


@dataclass(slots=True)
class Wait:
    """A request in flight that waits for its engine; `since` is set whenever it gets something.

    Attributes:
        sent_at: When the request was sent.
        since: When it last got something, or was sent.
        prompt_bytes: The size of its body.
        silence_s: What its engine may need at the most; None for the usual.
        has_form: Whether the answer must have a form.
    """

    sent_at: float
    since: float
    prompt_bytes: int = 0
    silence_s: float | None = None
    has_form: bool = False

    def is_in_vain(self, life: EngineLife, now: float, timeouts: EngineTimeouts) -> bool:
        """Whether the engine hangs, so that waiting on is useless."""
        if self.silence_s is not None:
            return now - max(self.since, life.heard_at) > self.silence_s
        if life.heard_at < self.sent_at:
            busy_s = self.prompt_bytes / timeouts.cutting_bytes_per_s
            if self.has_form:
                busy_s += timeouts.vocabulary_s
            return life.hangs and now - self.sent_at > timeouts.question_s + busy_s
        return now - max(self.since, life.heard_at) > timeouts.in_flight_s
