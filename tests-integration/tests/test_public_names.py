"""Names of public types, over all packages."""

import re
from collections import defaultdict
from pathlib import Path

PACKAGES = Path(__file__).parents[2] / "packages"
PUBLIC_TYPE = re.compile(r"^(?:class|type) ([A-Z]\w*)", re.MULTILINE)


def test_who_searches_a_public_type_by_its_name_finds_one() -> None:
    places: defaultdict[str, list[str]] = defaultdict(list)
    for path in PACKAGES.glob("*/src/**/*.py"):
        for name in PUBLIC_TYPE.findall(path.read_text(encoding="utf-8")):
            places[name].append(str(path.relative_to(PACKAGES)))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}
