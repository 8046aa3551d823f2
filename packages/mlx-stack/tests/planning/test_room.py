"""Models that don't fit are refused or warned of, with the name of one that does."""

import re

import pytest

from mlx_catalog import Quant
from mlx_stack.home import Home
from mlx_stack.models.errors import ModelTooLargeError
from mlx_stack.models.events import Planned
from mlx_stack.open_stack import OpenStack
from mlx_stack.planning.init import Addition, draft_stack, write_draft
from mlx_stack.planning.recommend import Constraints
from mlx_stack.planning.room import MemoryRoom, check_stack, download_warning

TOO_LARGE = Addition("glm-4.7", "big")
OVER_BUDGET = Addition("llama3.3-70b", "big")


def test_a_download_that_nothing_here_can_serve_says_why(home: Home):
    warning, is_hopeless = download_warning(OpenStack(home), "kokoro-82m", None, planned(1))
    assert "can't be served: it needs the package misaki" in warning
    assert is_hopeless


def planned(total_bytes: int) -> Planned:
    return Planned("someone/Model", "main", total_bytes, 0, ())


def test_a_model_above_the_limit_is_refused_with_one_that_is_accepted(home: Home):
    with pytest.raises(ModelTooLargeError, match=r"than the 51.5 GB that") as refused:
        draft_stack(OpenStack(home), additions=(TOO_LARGE,))
    nearest = re.findall(r"fits is (\S+) ", refused.value.hint or "")[0]
    draft = draft_stack(OpenStack(home), additions=(Addition(nearest),), only_additions=True)
    assert draft.total_bytes < 64 * 2**30 * 3 // 4


@pytest.mark.parametrize(
    ("machine", "asked", "nearest"),
    [
        ("m4-max:40:64", "qwen3.5-122b-a10b", "qwen3.5-35b-a3b"),  # its own family
        ("m4-pro:20:48", "gpt-oss-120b", "gpt-oss-20b"),  # its own family, the size apart
        ("m4:10:16", "qwen3-vl-8b", "qwen3-vl-4b"),  # it sees
    ],
)
def test_the_nearest_model_is_alike_in_family_sight_and_size(
    home: Home, on_mac, machine: str, asked: str, nearest: str
):
    on_mac(machine)
    warning, _ = download_warning(OpenStack(home), asked, None, planned(1))
    assert f"The nearest model that fits is {nearest} (" in warning


def test_a_model_that_fits_at_a_lower_precision_is_nearest_to_itself(home: Home, on_mac):
    on_mac("m4-max:40:64")
    warning, _ = download_warning(OpenStack(home), "qwen3-32b", Quant.BF16, planned(1))
    assert "The nearest model that fits is qwen3-32b at int4 (" in warning


def test_a_refused_model_changes_nothing(home: Home):
    write_draft(OpenStack(home), draft_stack(OpenStack(home)))
    before = home.stack.read_text()
    with pytest.raises(ModelTooLargeError):
        draft_stack(OpenStack(home), additions=(TOO_LARGE,))
    assert home.stack.read_text() == before


def test_it_can_be_forced_and_then_up_asks_for_the_same(home: Home):
    draft = draft_stack(
        OpenStack(home), additions=(TOO_LARGE,), only_additions=True, allows_too_large=True
    )
    assert "more than the 51.5 GB that the GPU may use" in draft.warning
    assert draft.is_too_large
    write_draft(OpenStack(home), draft)
    with pytest.raises(ModelTooLargeError):
        check_stack(OpenStack(home), None, is_forced=False)
    with pytest.raises(ModelTooLargeError):
        check_stack(OpenStack(home), "big", is_forced=False)
    assert "GPU may use" in check_stack(OpenStack(home), None, is_forced=True)


def test_above_the_budget_is_a_warning_of_every_command(home: Home):
    draft = draft_stack(OpenStack(home), additions=(OVER_BUDGET,), only_additions=True)
    assert "more than the budget of 27.5 GB" in draft.warning
    assert draft.warning in draft.notes
    assert not draft.is_too_large
    write_draft(OpenStack(home), draft)
    assert "budget of 27.5 GB" in check_stack(OpenStack(home), None, is_forced=False)
    warning, is_hopeless = download_warning(OpenStack(home), "llama3.3-70b", None, planned(1))
    assert re.fullmatch(
        r"llama3.3-70b needs 4\S+ GB, more than the budget of 27.5 GB. "
        r"The nearest model that fits is \S+ \(2[0-7]\S+ GB\).",
        warning,
    )
    assert not is_hopeless


def test_the_budget_asked_for_counts(home: Home):
    asked = Constraints(budget_bytes=4 * 10**9)
    draft = draft_stack(OpenStack(home), asked, additions=(Addition("qwen3-8b"),))
    assert [each.tier.model for each in draft.tiers] == ["qwen3-8b"]
    assert "budget of 4.0 GB" in "".join(draft.notes)


def test_a_repository_is_judged_by_the_size_of_its_files(home: Home):
    warning, is_hopeless = download_warning(
        OpenStack(home), "someone/Model", None, planned(60 * 10**9)
    )
    assert "someone/Model needs 60." in warning
    assert is_hopeless
    assert download_warning(OpenStack(home), "someone/Model", None, planned(10**9)) == ("", False)


def test_what_fits_is_passed_over_in_silence(home: Home):
    write_draft(OpenStack(home), draft_stack(OpenStack(home)))
    assert check_stack(OpenStack(home), None, is_forced=False) == ""


def test_what_is_unknown_is_no_reason_to_refuse():
    assert not MemoryRoom().excludes(10**15)
    assert MemoryRoom().warning("It needs", 10**15) == ""
    assert not MemoryRoom(1, 1).excludes(None)
