#!/usr/bin/env python3
"""coverage.py FILE: the line coverage that `cargo llvm-cov report --json --summary-only` wrote, by crate and in all.
Exit status 1 if it is less than it has to be."""
import json, sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from auditlib import crates  # noqa: E402

# A wrong hit is the worst that memobuild can do: what decides about hits is held to more.
LEAST = 85.0
LEAST_OF_HITS = 95.0
HITS = {
    "memobuild-tree": ["memobuild-tree/src/"],
    "facts and look-up": [
        "memobuild-engine/src/memo/",
        "memobuild-engine/src/keys.rs",
        "memobuild-engine/src/step/facts.rs",
        "memobuild-engine/src/step/lookup.rs",
        "memobuild-engine/src/step/past.rs",
        "memobuild-engine/src/step/order.rs",
        "memobuild-engine/src/step/inputs.rs",
    ],
}


class Lines:
    """Lines, and how many of them were run."""

    def __init__(self):
        self.all = self.run = 0

    def add(self, summary):
        self.all += summary["count"]
        self.run += summary["covered"]

    def percent(self):
        return 100 * self.run / self.all if self.all else 0.0


def read(path):
    """The library's and the program's own files, by their path below crates/; tests are no measure of themselves."""
    top = crates.ROOT / "crates"
    for file in json.loads(Path(path).read_text())["data"][0]["files"]:
        name = Path(file["filename"])
        if name.is_relative_to(top) and name.relative_to(top).parts[1] == "src" and not name.stem.endswith("tests"):
            yield name.relative_to(top).as_posix(), file["summary"]["lines"]


def main():
    by_crate, hits, total = {}, {name: Lines() for name in HITS}, Lines()
    for name, lines in read(sys.argv[1]):
        total.add(lines)
        by_crate.setdefault(name.split("/")[0], Lines()).add(lines)
        for group, starts in HITS.items():
            if name.startswith(tuple(starts)):
                hits[group].add(lines)
    bad = []

    def row(name, lines, least=None):
        print(f"{name:24} {lines.run:6} of {lines.all:6} lines  {lines.percent():5.1f}%" + (f"  (at least {least}%)" if least else ""))
        if least and lines.percent() < least:
            bad.append(f"{name}: {lines.percent():.1f}% of lines are run by tests, not {least}%")

    for name, lines in sorted(by_crate.items()):
        row(name, lines)
    for name, lines in hits.items():
        row(name, lines, LEAST_OF_HITS)
    row("all", total, LEAST)
    print("\n".join(bad))
    return 1 if bad else 0


sys.exit(main())
