"""Logs: read from the end, rotated under a writer, followed, made harmless."""

import gzip
import os
import re
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_procsup import StateFileError
from mlx_procsup.logfiles import (
    all_lines,
    follow,
    last_line,
    last_words,
    list_logs,
    new_matches,
    plain,
    tail_lines,
    tail_with_archive,
)
from mlx_procsup.rotate import RotationRule, archives, rotate_if_larger, rotate_log, rotated_copy
from mlx_procsup.testing import eventually


def numbered(first: int, last: int) -> str:
    return "".join(f"line {n}\n" for n in range(first, last))


@given(
    lines=st.lists(
        st.text(
            st.characters(
                codec="utf-8", exclude_characters="\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
            )
        )
    ),
    count=st.integers(0, 20),
    finished=st.booleans(),
)
def test_tail_shows_exactly_the_last_lines(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], count: int, finished: bool
) -> None:
    path = tmp_path_factory.mktemp("tail") / "x.log"
    text = "\n".join(lines) + ("\n" if finished and lines else "")
    path.write_text(text, encoding="utf-8", newline="")
    expected = [line.rstrip("\r") for line in text.removesuffix("\n").split("\n")] if text else []
    assert tail_lines(path, count) == (expected[-count:] if count else [])


def test_tail_of_long_lines_crosses_blocks(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    lines = [str(n) * 50_000 for n in range(8)]
    path.write_text("\n".join(lines) + "\n")
    assert tail_lines(path, 3) == lines[-3:]
    assert tail_lines(path, 100) == lines


def test_tail_starts_no_earlier_than_asked(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    path.write_text("old run\nnew run\n")
    assert tail_lines(path, 10, start=8) == ["new run"]
    assert tail_lines(path, 10, start=800) == ["old run", "new run"]


def test_the_words_for_a_message_are_plain_and_never_endless(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    path.write_bytes(b"old run\n\x1b[31mnew\x00 key\n" + b"x" * 1_000_000 + b" the end")
    words = last_words(path, 2, mask=lambda line: line.replace("key", "***"))
    assert len(words) == 1  # what is further back is not read
    assert words[0].endswith("x the end")
    assert len(words[0]) < 3000
    assert last_line(path) == words[0]

    path.write_bytes(b"old run\n\x1b[31mnew\x00 key\n\n")
    assert last_words(path, 9, 8, mask=lambda line: line.replace("key", "***")) == ["new ***", ""]
    assert last_line(path) == "new key"


def test_a_log_that_is_no_utf8_is_shown_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    path.write_bytes(b"\xff\xfe caf\xe9\nfine\n")
    assert tail_lines(path, 5) == ["\ufffd\ufffd caf\ufffd", "fine"]
    assert list(all_lines(path)) == tail_lines(path, 5)


def test_rotation_keeps_every_line_in_numbered_archives(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    with log.open("a") as writer:
        for generation in range(3):
            writer.write(numbered(generation * 10, generation * 10 + 10))
            writer.flush()
            assert rotate_log(log, max_files=5) is not None
        writer.write("live\n")
    assert [path.name for path in archives(log)] == ["x.log.3.gz", "x.log.2.gz", "x.log.1.gz"]
    assert list(all_lines(log)) == [*numbered(0, 30).splitlines(), "live"]
    assert log.read_text() == "live\n"
    assert oct((tmp_path / "x.log.1.gz").stat().st_mode)[-3:] == "600"


def test_only_the_youngest_archives_are_kept(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    for generation in range(5):
        log.write_text(f"{generation}\n")
        rotate_log(log, max_files=2)
    assert list(all_lines(log)) == ["3", "4"]
    assert len(archives(log)) == 2


def test_numbers_beyond_nine_stay_in_order(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    for generation in range(12):
        log.write_text(f"{generation}\n")
        rotate_log(log, max_files=12)
    assert list(all_lines(log)) == [str(n) for n in range(12)]


def test_a_small_or_missing_log_is_left_alone(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    rule = RotationRule(max_bytes=100)
    assert rotate_if_larger(log, rule) is None
    log.write_bytes(b"x" * 100)
    assert rotate_if_larger(log, rule) is None
    log.write_bytes(b"x" * 101)
    assert rotate_if_larger(log, rule) is not None
    assert rotate_log(log, 5) is None


def test_a_rotation_cut_off_before_its_compression_is_finished_by_the_next(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    rotated_copy(log).write_text("rotated\n")
    (tmp_path / "x.log.copying").write_text("half")
    log.write_text("next\n")
    assert list(all_lines(log)) == ["rotated", "next"]
    rotate_log(log, max_files=5)
    assert list(all_lines(log)) == ["rotated", "next"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "x.log",
        "x.log.1.gz",
        "x.log.2.gz",
    ]


def test_a_rotation_that_cannot_write_leaves_the_log(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_text("words\n")
    (tmp_path / "x.log.copying").mkdir()
    with pytest.raises(OSError, match="copying"):
        rotate_log(log, max_files=5)
    assert log.read_text() == "words\n"


def test_a_line_cut_by_a_rotation_is_joined_again(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_text("a\nhal")
    rotate_log(log, max_files=5)
    log.write_text("f\nb\n")
    assert list(all_lines(log)) == ["a", "half", "b"]


def test_just_after_a_rotation_the_tail_reaches_into_the_archive(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_text(numbered(0, 100))
    rotate_log(log, max_files=5)
    with log.open("a") as writer:
        writer.write(numbered(100, 102))
    assert tail_with_archive(log, 4) == ["line 98", "line 99", "line 100", "line 101"]


def test_the_tail_reaches_through_as_many_archives_as_it_needs(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    for generation in range(3):
        log.write_text(numbered(generation * 2, generation * 2 + 2))
        rotate_log(log, max_files=5)
    assert tail_with_archive(log, 5) == numbered(1, 6).splitlines()


@pytest.mark.parametrize("damage", ["cut off", "other bytes", "no archive"])
def test_a_damaged_archive_is_named_and_hides_nothing_that_is_younger(
    tmp_path: Path, damage: str
) -> None:
    log = tmp_path / "x.log"
    log.write_text(numbered(0, 100))
    rotate_log(log, max_files=5)
    log.write_text("live\n")
    archive = tmp_path / "x.log.1.gz"
    whole = archive.read_bytes()
    archive.write_bytes(
        {
            "cut off": whole[:-20],
            "other bytes": whole[:10] + b"\xff" * 40,
            "no archive": b"a text",
        }[damage]
    )
    with pytest.raises(StateFileError, match=r"x\.log\.1\.gz"):
        list(all_lines(log))
    assert tail_with_archive(log, 10) == ["live"]


class Script:
    """Feeds a log in the pauses of `follow`: one step a pause, then the end."""

    def __init__(self, log: Path, *steps: str) -> None:
        self.log = log
        self.steps = list(steps)

    def sleep(self, _seconds: float) -> None:
        step = self.steps.pop(0)
        if step == "ROTATE":
            rotate_log(self.log, max_files=5)
        elif step == "TRUNCATE":
            os.truncate(self.log, 0)
        else:
            with self.log.open("a") as file:
                file.write(step)

    def stopped(self) -> bool:
        return not self.steps

    def follow(self, tail: int = 0) -> list[str]:
        return list(follow(self.log, tail=tail, stopped=self.stopped, sleep=self.sleep))


def test_following_shows_the_tail_and_what_is_added(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_text("a\nb\nc\npart")
    assert Script(log, "ial\nd\n").follow(tail=2) == ["c", "partial", "d"]


def test_following_waits_for_a_log_that_is_not_there_yet(tmp_path: Path) -> None:
    assert Script(tmp_path / "x.log", "a\n").follow() == ["a"]


def test_following_loses_nothing_across_rotations(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_text("a\n")
    script = Script(log, "b\n", "ROTATE", "c\n", "d\n", "ROTATE", "e\n")
    assert script.follow(tail=5) == ["a", "b", "c", "d", "e"]


def test_following_reads_what_a_rotation_took_away_unread(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_text("a\n")

    class Sudden(Script):
        def sleep(self, seconds: float) -> None:
            if self.steps[0] == "b\n":
                super().sleep(seconds)  # written and rotated within one pause
            super().sleep(seconds)

    assert Sudden(log, "b\n", "ROTATE", "c\n").follow(tail=1) == ["a", "b", "c"]


def test_following_reads_the_copy_while_it_is_compressed(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_text("a\n")

    class Halfway(Script):
        def sleep(self, seconds: float) -> None:
            if self.steps[0] == "COPY":
                self.steps.pop(0)
                rotated_copy(log).write_text("a\nb\n")
                os.truncate(log, 0)
            elif self.steps[0] == "ARCHIVE":
                self.steps.pop(0)
                (log.parent / "x.log.1.gz").write_bytes(gzip.compress(b"a\nb\n"))
                rotated_copy(log).unlink()
            else:
                super().sleep(seconds)

    assert Halfway(log, "COPY", "c\n", "ARCHIVE", "d\n").follow(tail=1) == ["a", "b", "c", "d"]


def test_following_goes_on_after_somebody_cut_the_log(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_text("a\nb\n")
    assert Script(log, "TRUNCATE", "c\n").follow(tail=1) == ["b", "c"]


def test_rotation_under_a_busy_writer_duplicates_nothing(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.touch()
    stop = threading.Event()

    def write() -> None:
        number = 0
        with log.open("ab", buffering=0) as file:
            while not stop.wait(0.0005):
                file.write(f"{number}\n".encode())
                number += 1

    writer = threading.Thread(target=write)
    writer.start()
    for _ in range(5):
        assert eventually(lambda: log.stat().st_size > 0, 30)
        rotate_log(log, max_files=10)
    stop.set()
    writer.join()
    numbers = [int(line) for line in all_lines(log)]
    assert numbers == sorted(set(numbers))
    assert len(archives(log)) == 5


def test_only_new_and_whole_lines_are_searched_also_after_a_cut(tmp_path: Path) -> None:
    log, words = tmp_path / "a.log", re.compile(rb"ran out of \w+")
    assert new_matches(log, words, 0) == ([], 0)
    log.write_text("ran out of ink\nran out of pa")
    found, position = new_matches(log, words, 0)
    assert found == ["ran out of ink"]
    with log.open("a") as file:
        file.write("per\n")
    assert new_matches(log, words, position) == (["ran out of paper"], log.stat().st_size)
    position = log.stat().st_size
    assert new_matches(log, words, position) == ([], position)
    log.write_text("ran out of time\n")
    assert new_matches(log, words, position) == (["ran out of time"], 16)


def test_of_very_much_only_the_end_is_searched(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("ran out\n" + "x" * 2**20 + "\nran out\n")
    assert new_matches(log, re.compile(b"ran out"), 0) == (["ran out"], log.stat().st_size)
    log.write_text("ran out" + "x" * 2**21)
    assert new_matches(log, re.compile(b"ran out"), 0) == ([], log.stat().st_size)


def test_a_log_that_is_removed_while_logs_are_listed_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.log").symlink_to(tmp_path / "removed")
    (tmp_path / "b.log").write_text("still here\n")
    assert [each.name for each in list_logs(tmp_path)] == ["b"]


def test_listing_shows_each_log_with_its_archives(tmp_path: Path) -> None:
    assert list_logs(tmp_path / "none") == []
    (tmp_path / "b.log").write_text("x")
    (tmp_path / "a.log").write_text("xx")
    rotate_log(tmp_path / "a.log", 5)
    infos = list_logs(tmp_path)
    assert [(i.name, i.size_bytes, len(i.archives)) for i in infos] == [("a", 0, 1), ("b", 1, 0)]


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("\x1b[32mINFO\x1b[0m ok", "INFO ok"),
        ("\x1b]0;new title\x07text", "text"),
        ("\x1b[2J\x1b[Hcleared", "cleared"),
        ("a\tb", "a\tb"),
        (" 10%\r 50%\r100%", "100%"),
        ("100%\r", "100%"),
        ("bell\x07 back\x08space \x9b2J", "bell backspace 2J"),
        ("\x1bPsecret\x1b\\after", "after"),
        ("unfinished \x1b[", "unfinished "),
        ("ümläut 日本", "ümläut 日本"),
    ],
)
def test_a_line_cannot_do_anything_to_the_terminal(line: str, shown: str) -> None:
    assert plain(line) == shown


def test_colours_may_stay_and_end_with_the_line() -> None:
    assert plain("\x1b[31mred\x1b[2J", keep_colours=True) == "\x1b[31mred\x1b[0m"


@given(st.text())
def test_no_text_gets_a_control_character_through(text: str) -> None:
    shown = plain(text)
    assert not any(
        (ord(c) < 32 and c != "\t") or 127 <= ord(c) < 160 for c in shown.replace("\n", "")
    )
