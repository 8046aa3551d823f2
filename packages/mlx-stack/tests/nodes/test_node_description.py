"""The one hash of a model's files."""

from mlx_stack.models.disk.manifest import FileRecord, Manifest
from mlx_stack.nodes.description import digest_in


def manifest(*files: tuple[str, str]) -> Manifest:
    records = tuple(
        FileRecord(path=path, size_bytes=1, algorithm="sha256", digest=digest)
        for path, digest in files
    )
    return Manifest(repo="a/b", revision="0" * 40, quant=None, origin="downloaded", files=records)


def test_the_order_of_files_makes_no_difference_and_their_content_does() -> None:
    one = digest_in(manifest(("a", "1"), ("b", "2")))

    assert one == digest_in(manifest(("b", "2"), ("a", "1")))
    assert one != digest_in(manifest(("a", "1"), ("b", "3")))
    assert one != digest_in(manifest(("a", "1"), ("c", "2")))


def test_a_model_without_known_files_has_no_hash() -> None:
    assert digest_in(manifest()) is None
