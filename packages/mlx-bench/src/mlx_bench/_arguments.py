"""The command line of `mlx-bench`."""

import argparse
import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NoReturn

from mlx_bench import __version__
from mlx_bench.agents.workload import AgentParameters
from mlx_bench.errors import ParametersError
from mlx_bench.roles.known import WORKLOADS, workload_of
from mlx_bench.roles.workload import RoleParameters
from mlx_bench.workload import Cache, Parameters

_OUTPUT_SUFFIXES = (".json", ".html", ".md", ".csv")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Raise instead of exiting, so that the caller chooses text or JSON."""
        raise ParametersError(f"{message} (see {self.prog} --help)")


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """The options, with `command` being `run`, or one of the others' names.

    Raises:
        ParametersError: The command line makes no sense.
    """
    parsers = {
        "compare": _compare_parser,
        "report": _report_parser,
        "calibrate": _calibrate_parser,
        "conformance": _conformance_parser,
    }
    command = arguments[0] if arguments else ""
    if command not in parsers:
        return _run_parser().parse_args(arguments, argparse.Namespace(command="run"))
    named = argparse.Namespace(command=command)
    return parsers[command]().parse_intermixed_args(arguments[1:], named)


def parameters_from(options: argparse.Namespace) -> Parameters:
    """What the options ask to measure.

    Raises:
        ParametersError: A number is out of range.
    """
    return Parameters(**{name: getattr(options, name) for name in Parameters.__struct_fields__})


def agent_parameters_from(options: argparse.Namespace) -> AgentParameters:
    """What the options ask of agents.

    Raises:
        ParametersError: A number is out of range, or an option is of single requests.
    """
    if options.html or options.form not in (None, ".json"):
        raise ParametersError("A benchmark of agents is shown as a table or as JSON.")
    if any(path.suffix != ".json" for path in options.output):
        raise ParametersError("A benchmark of agents is written as .json.")
    names = AgentParameters.__struct_fields__
    return AgentParameters(
        **{name: value for name, value in vars(options).items() if name in names}
    )


_OF_SINGLE_REQUESTS = (
    *("iterations", "warm_up", "prompt_tokens", "concurrency", "cache", "precision"),
    "max_iterations",
)
_OF_AGENTS = ("turns", "prefix_tokens", "result_tokens")


def refuse_mixture(options: argparse.Namespace) -> None:
    """Refuse options of another kind of benchmark than the one asked for: they would do nothing.

    Raises:
        ParametersError: One of them is there.
    """
    if options.check:
        others = (*_OF_SINGLE_REQUESTS, *_OF_AGENTS, "generation_tokens", "check_tools")
        _refuse(options, others, "doesn't go with --check")
    else:
        _refuse(options, ("context_tokens",), "goes with --check only")
        if options.agents is None:
            _refuse(options, _OF_AGENTS, "goes with --agents only")
        else:
            _refuse(options, _OF_SINGLE_REQUESTS, "doesn't go with --agents")


def _refuse(options: argparse.Namespace, names: Sequence[str], problem: str) -> None:
    parser = _run_parser()
    for name in names:
        if getattr(options, name) != parser.get_default(name):
            raise ParametersError(f"--{name.replace('_', '-')} {problem}.")


CHAT = "chat"
_OF_CHAT = (
    *("prompt_tokens", "generation_tokens", "cache", "check_tools", "check", "context_tokens"),
    *("agents", *_OF_AGENTS, "html"),
)
_OF_ROLES = ("items", "sizes")


def role_parameters_from(options: argparse.Namespace) -> RoleParameters | None:
    """What the options ask to measure of a role; None where they are about a chat.

    Raises:
        ParametersError: A number is out of range, or an option doesn't go with the role.
    """
    if options.role == CHAT:
        _refuse(options, _OF_ROLES, "is for models that don't chat: say which with --role")
        return None
    _refuse(options, _OF_CHAT, f"is for models that chat, not for the role {options.role}")
    if options.form not in (None, ".json") or any(p.suffix != ".json" for p in options.output):
        raise ParametersError(f"A benchmark of the role {options.role} is a table or JSON.")
    workload = workload_of(options.role)
    workload.require(options.items or (), options.sizes or ())
    names = ("iterations", "warm_up", "concurrency", "seed", "precision", "max_iterations")
    return RoleParameters(
        items=options.items or workload.items,
        sizes=options.sizes or workload.sizes,
        **{name: getattr(options, name) for name in names},
    )


def _integers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a list of integers like 1,4,8"
        ) from error


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time above 0")
    return seconds


def _output(text: str) -> Path:
    path = Path(text)
    if path.suffix not in _OUTPUT_SUFFIXES:
        raise argparse.ArgumentTypeError(f"{text!r} must end in {', '.join(_OUTPUT_SUFFIXES)}")
    return path


@cache
def _run_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="mlx-bench",
        description="Measure an OpenAI-compatible endpoint: TTFT, prefill and decode rate.",
        epilog="Further commands: mlx-bench compare A.json B.json, mlx-bench report FILE.json, "
        "mlx-bench calibrate (how accurate is mlx-bench on this machine?), mlx-bench conformance "
        "URL (does a server implement the APIs the way clients need them?).",
    )
    parser.add_argument("--version", action="version", version=f"mlx-bench {__version__}")
    parser.add_argument("url", metavar="URL", help="the base URL, e.g. http://127.0.0.1:8000/v1")
    parser.add_argument("--model", help="the model's name; needed if the server has several")
    workload = parser.add_argument_group("workload")
    defaults = Parameters()
    workload.add_argument(
        "--iterations",
        type=int,
        default=defaults.iterations,
        metavar="N",
        help="measured iterations (default: %(default)s)",
    )
    workload.add_argument(
        "--prompt-tokens",
        type=_integers,
        default=(1024,),
        metavar="N[,N…]",
        help="length of the prompts (default: 1024)",
    )
    workload.add_argument(
        "--generation-tokens",
        type=int,
        default=defaults.generation_tokens,
        metavar="N",
        help="length of the answers (default: %(default)s)",
    )
    workload.add_argument(
        "--concurrency", type=_integers, default=(1,), metavar="N[,N…]", help="concurrent streams"
    )
    workload.add_argument(
        "--warm-up", type=int, default=1, metavar="N", help="iterations that don't count"
    )
    workload.add_argument(
        "--cache",
        type=Cache,
        choices=tuple(Cache),
        default=Cache.FRESH,
        help="fresh: new prompts; primed: each prompt is sent once before",
    )
    workload.add_argument(
        "--precision",
        type=float,
        metavar="SHARE",
        help="continue until the 95%% intervals are this narrow, e.g. 0.02",
    )
    workload.add_argument(
        "--max-iterations",
        type=int,
        default=defaults.max_iterations,
        metavar="N",
        help="with --precision, the most iterations (default: %(default)s)",
    )
    workload.add_argument(
        "--seed",
        type=int,
        default=defaults.seed,
        metavar="N",
        help="reproduces the prompts of an earlier run; by default, they are new",
    )
    roles = parser.add_argument_group("models that don't chat")
    roles.add_argument(
        "--role",
        choices=(CHAT, *WORKLOADS),
        default=CHAT,
        help="the model's purpose; measures texts, pairs or images per second, or the real-time "
        "factor of speech",
    )
    roles.add_argument(
        "--items",
        type=_integers,
        metavar="N[,N…]",
        help="texts, documents or images per request; the default depends on the role; 1 for audio",
    )
    roles.add_argument(
        "--sizes",
        type=_integers,
        metavar="N[,N…]",
        help="tokens per text, pixels per side of an image, seconds of audio, or words to speak; "
        "the default depends on the role",
    )
    _add_agent_options(parser)
    workload.add_argument("--check-tools", action="store_true", help="also test a tool call")
    check = parser.add_argument_group("fitness for agents")
    check.add_argument(
        "--check",
        action="store_true",
        help="instead of measuring, check whether the served model is fit for agents: tools, "
        "JSON, thinking, the same greedy answers as last time, a number in a long text",
    )
    check.add_argument(
        "--context-tokens",
        type=int,
        metavar="N",
        help="the context length for --check; by default the one in the server's /v1/models",
    )
    server = parser.add_argument_group("server")
    server.add_argument(
        "--api-key-env", metavar="NAME", help="the environment variable that holds the key"
    )
    server.add_argument(
        "--timeout",
        type=_seconds,
        default=600.0,
        metavar="S",
        help="seconds to wait for the next part of an answer",
    )
    _add_output_options(parser, "files are rewritten after every iteration")
    parser.add_argument(
        "--save",
        action="store_true",
        help="write the report to the folder ./benchmarks after every iteration",
    )
    return parser


def _add_agent_options(parser: argparse.ArgumentParser) -> None:
    agents = parser.add_argument_group(
        "agents", "conversations that grow with tool results, instead of single requests"
    )
    defaults = AgentParameters()
    agents.add_argument(
        "--agents",
        type=int,
        metavar="N",
        help="number of concurrent agents; combines with --generation-tokens and --seed",
    )
    for option, default, what in (
        ("--turns", defaults.turns, "requests per agent"),
        ("--prefix-tokens", defaults.prefix_tokens, "length of the shared system prompt and tools"),
        ("--result-tokens", defaults.result_tokens, "length of the tool results per turn"),
    ):
        agents.add_argument(option, type=int, default=default, metavar="N", help=what)


def _add_output_options(parser: argparse.ArgumentParser, description: str | None = None) -> None:
    output = parser.add_argument_group("output", description)
    formats = output.add_mutually_exclusive_group()
    for option, form, what in (
        ("--json", ".json", "JSON"),
        ("--markdown", ".md", "Markdown"),
        ("--csv", ".csv", "one row per run"),
    ):
        formats.add_argument(
            option, dest="form", action="store_const", const=form, help=f"print {what}"
        )
    output.add_argument("--html", type=Path, metavar="FILE", help="write one page with plots")
    output.add_argument(
        "--output",
        "-o",
        type=_output,
        action="append",
        default=[],
        metavar="FILE",
        help="write a report in the format of the suffix; may be repeated",
    )


def _compare_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="mlx-bench compare",
        description="Print the ratio of each figure in two saved reports, with its uncertainty.",
    )
    parser.add_argument("a", type=Path, metavar="A.json")
    parser.add_argument("b", type=Path, metavar="B.json")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _report_parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="mlx-bench report", description="Show a saved report in another format.")
    parser.add_argument("file", type=Path, metavar="FILE.json")
    _add_output_options(parser)
    return parser


def _conformance_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="mlx-bench conformance",
        description="Test a server with small requests in OpenAI's, Anthropic's and Ollama's APIs, "
        "each with its expected answer. The model must follow simple instructions: it answers "
        "`Repeat: TEXT` with TEXT.",
    )
    parser.add_argument("url", metavar="URL", help="the base URL, e.g. http://127.0.0.1:8000/v1")
    parser.add_argument(
        "cases",
        nargs="*",
        metavar="CASE",
        help="groups (chat, messages, responses, ollama, http, behaviour, thinking) or IDs such as "
        "C04; by default every group except `thinking`, which needs a thinking model",
    )
    parser.add_argument(
        "--model", required=True, metavar="M", help="the model's name on the server"
    )
    parser.add_argument(
        "--api-key-env", metavar="NAME", help="the environment variable that holds the key"
    )
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=60.0,
        metavar="S",
        help="seconds to wait for the next part of an answer",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _calibrate_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="mlx-bench calibrate",
        description="Measure a server with a known schedule, and report the error of the figures "
        "on this machine.",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser
