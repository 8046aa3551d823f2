"""What engines of before wrote of prompts, taken out of logs and archives."""

import gzip
import os
from pathlib import Path

import pytest

from mlx_stack.home import Home
from mlx_stack.services.old_prompts import remove_old_prompts

OLD = b"""INFO:vllm_mlx.server:[REQUEST] POST /v1/chat/completions msgs=1
INFO:vllm_mlx.server:[REQUEST] last user message preview: My PIN is 4711
INFO:     127.0.0.1:1 - "POST /v1/chat/completions HTTP/1.1" 200 OK
INFO:vllm_mlx.server:[REQUEST] POST /v1/completions prompt_chars=9 prompt_preview=PIN 4711\r
INFO:vllm_mlx.models.mllm:  Chat msg 0: role=user, content=PIN 4711
and the second line 4711
and its end 4711...
INFO:vllm_mlx.server:Chat completion: 471 tokens
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    home.logs.mkdir()
    return home


def write(home: Home, name: str, text: bytes = OLD) -> tuple[Path, Path]:
    log, archive = home.logs / f"{name}.log", home.logs / f"{name}.log.1.gz"
    log.write_bytes(text)
    archive.write_bytes(gzip.compress(text * 3))
    return log, archive


def test_the_log_and_its_archives_lose_the_prompts_and_nothing_else(home: Home) -> None:
    log, archive = write(home, "standard")
    writer = os.open(log, os.O_WRONLY | os.O_APPEND)  # as the service that keeps it open
    assert remove_old_prompts(home) == []
    os.write(writer, b"INFO: what comes later\n")
    os.close(writer)
    for text in (log.read_bytes(), gzip.decompress(archive.read_bytes())):
        assert b"4711" not in text
        assert b"last user message preview: <removed>" in text
        assert b"Chat completion: 471 tokens" in text
    assert len(log.read_bytes()) == len(OLD) + len(b"INFO: what comes later\n")
    assert log.read_bytes().count(b"\n") == OLD.count(b"\n") + 1
    assert archive.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in home.logs.iterdir()) == [
        ".without-prompts",
        "standard.log",
        "standard.log.1.gz",
    ]


def test_it_is_done_once_and_later_for_who_may_still_write(home: Home) -> None:
    first, _ = write(home, "fast")
    second, _ = write(home, "standard")
    remove_old_prompts(home, ["standard"])
    assert b"4711" not in first.read_bytes()
    assert second.read_bytes() == OLD
    first.write_bytes(OLD)
    remove_old_prompts(home)
    assert b"4711" not in second.read_bytes()
    assert first.read_bytes() == OLD, "it was cleaned, and is not read again"


def test_a_damaged_archive_is_named_and_tried_again(home: Home) -> None:
    log, archive = write(home, "standard")
    archive.write_bytes(archive.read_bytes()[:40])
    assert str(log) in remove_old_prompts(home)[0]
    archive.unlink()
    assert remove_old_prompts(home) == []
    assert b"4711" not in log.read_bytes()


def test_a_large_log_is_cleaned_across_its_blocks(home: Home) -> None:
    log, archive = write(home, "standard", OLD * 6000)  # more than two blocks
    assert remove_old_prompts(home) == []
    for text in (log.read_bytes(), gzip.decompress(archive.read_bytes())):
        assert b"4711" not in text
        assert text.count(b"\n") % OLD.count(b"\n") == 0
