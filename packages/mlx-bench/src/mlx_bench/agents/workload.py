"""What agents send: a long head that they share, tasks of their own, results of tools; pure.

Texts are made of words that are one token each (decision 0062), drawn from the seed: the same seed
makes the same texts, another one texts that no prefix cache has seen.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from mlx_bench.errors import ParametersError
from mlx_bench.workload import PromptMaker, new_seed, require_length

PROBE_WORDS = 16
"""So many words has the system prompt whose tokens the server is asked to count."""

_TEMPLATE_TOKENS = 32
"""At most so many does a chat template put around the messages of one turn."""

_ORDERS = (
    "\n\nYou are a coding agent at work on a task. Call one tool in each answer, and nothing else, "
    "until the work is done."
)
_TASK = "Look into the files of these names, one after the other, the first of them first:"


class AgentParameters(msgspec.Struct, frozen=True):
    """Which agents are to be measured.

    Attributes:
        agents: So many conversations at once.
        turns: So many requests each conversation makes.
        prefix_tokens: Length of the system prompt, the tools and the template around them, which
            all agents share.
        task_tokens: Length of the first message of the user, which no two agents share.
        result_tokens: By so much the results of tools make a conversation longer each turn.
        generation_tokens: Where an answer ends at the latest.
        seed: Of all texts and of the bootstrap; a new one unless given.
    """

    agents: int = 4
    turns: int = 6
    prefix_tokens: int = 16_000
    task_tokens: int = 200
    result_tokens: int = 600
    generation_tokens: int = 100
    seed: int = msgspec.field(default_factory=new_seed)

    def __post_init__(self) -> None:
        """Refuse what makes no sense.

        Raises:
            ParametersError: A number is below 1, or a text longer than any model can read.
        """
        numbers = (self.agents, self.turns, self.prefix_tokens, self.task_tokens)
        if min(*numbers, self.result_tokens, self.generation_tokens) < 1:
            raise ParametersError(
                "Agents, turns, and the tokens of prefix, task, results and answers "
                "must be at least 1."
            )
        require_length(self.prefix_tokens, self.task_tokens, self.result_tokens)

    @property
    def context_tokens(self) -> int:
        """What the longest prompt and its answer need at most."""
        grown = self.result_tokens + _TEMPLATE_TOKENS
        first = self.prefix_tokens + self.task_tokens
        return first + self.turns * self.generation_tokens + (self.turns - 1) * grown

    def require_context(self, context_tokens: int | None) -> None:
        """Refuse conversations that the model has no context for; an unknown context refuses none.

        Raises:
            ParametersError: The last turn wouldn't fit.
        """
        if context_tokens is None or self.context_tokens <= context_tokens:
            return
        room = self.prefix_tokens - (self.context_tokens - context_tokens)
        shorter = f"--prefix-tokens {room} or less, or " if room > 0 else ""
        raise ParametersError(
            f"{self.turns} turns of these agents need a context of {self.context_tokens:,} tokens; "
            f"the model has {context_tokens:,}.",
            hint=f"Ask for {shorter}fewer --turns, or give the model a longer context.",
        )


def _tool(name: str, what: str, **parameters: str) -> Mapping[str, object]:
    properties = {key: {"type": "string", "description": text} for key, text in parameters.items()}
    schema = {"type": "object", "properties": properties, "required": list(parameters)[:1]}
    function = {"name": name, "description": what, "parameters": schema}
    return {"type": "function", "function": function}


TOOLS: tuple[Mapping[str, object], ...] = (
    _tool(
        "read_file",
        "Reads a file of the working directory and gives its text with the numbers of the lines.",
        path="Which file, as a path from the working directory.",
        first_line="Where to begin, as a number; 1 if left out.",
    ),
    _tool(
        "run_command",
        "Runs a command in a shell and gives what it prints and its exit status. A command that "
        "takes longer than two minutes is ended.",
        command="The command line.",
        directory="Where it runs; the working directory if left out.",
    ),
    _tool(
        "search",
        "Gives the lines that match a regular expression, each with its file and number.",
        pattern="The regular expression.",
        glob="Only files whose names match this.",
    ),
    _tool(
        "edit_file",
        "Replaces one passage of a file, which must occur exactly once.",
        path="Which file, as a path from the working directory.",
        old="The passage, with enough text around it to be the only one.",
        new="What takes its place.",
    ),
)
"""The tools that every agent offers the model."""


@dataclass(frozen=True, slots=True)
class AgentTexts:
    """Makes the texts of one benchmark.

    Attributes:
        prompts: Words, and how many tokens each is by the server's count.
        system_words: How many words the system prompt has.
    """

    parameters: AgentParameters
    prompts: PromptMaker
    system_words: int = PROBE_WORDS

    @classmethod
    def fitted(
        cls, parameters: AgentParameters, prompts: PromptMaker, probe_tokens: int | None
    ) -> "AgentTexts":
        """Texts whose first prompt has the tokens asked for.

        Args:
            probe_tokens: The server's count of a first prompt with `PROBE_WORDS` words in its
                system prompt, or None where it counts nothing.

        Raises:
            ParametersError: Tools and template alone are longer than the prefix asked for.
        """
        per_word = prompts.tokens_per_word
        fixed = 0.0
        if probe_tokens is not None:
            fixed = probe_tokens - PROBE_WORDS * per_word - parameters.task_tokens
        system_words = round((parameters.prefix_tokens - fixed) / per_word)
        if system_words < 1:
            raise ParametersError(
                f"The tools and this model's template take {round(fixed)} tokens.",
                hint=f"Ask for --prefix-tokens {round(fixed + per_word) + 1} or more.",
            )
        return cls(parameters, prompts, system_words)

    def system_prompt(self) -> str:
        """What every conversation begins with; its first words are new with each seed."""
        return self._words("system", self.system_words) + _ORDERS

    def task(self, agent: int) -> str:
        """The first message of an agent's user."""
        return f"{_TASK} {self._words(f'task {agent}', self._count(self.parameters.task_tokens))}"

    def result(self, agent: int, turn: int, call: int = 0, of: int = 1) -> str:
        """What a tool gives back; several calls of one turn share its length."""
        words = max(1, self._count(self.parameters.result_tokens) // of)
        return self._words(f"result {agent} {turn} {call}", words)

    def _count(self, tokens: int) -> int:
        return max(1, round(tokens / self.prompts.tokens_per_word))

    def _words(self, what: str, count: int) -> str:
        draw = random.Random(f"{self.parameters.seed}/{what}")  # noqa: S311 - no secret
        return " ".join(draw.choices(self.prompts.words, k=count))
