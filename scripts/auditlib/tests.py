#!/usr/bin/env python3
"""tests.py there|run: the tests in security-tests.txt are in the sources; or they are run, by nextest where it is
installed, and each of them passes. One line if all is well, else what is not, and exit status 1."""
import os, re, subprocess, sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from auditlib import crates  # noqa: E402

LIST = Path(__file__).with_name("security-tests.txt")


def listed():
    lines = (line.split() for line in LIST.read_text().splitlines() if line and not line.startswith("#"))
    tests = {}
    for crate, test in lines:
        tests.setdefault(crate, []).append(test)
    return tests


def in_sources(crate):
    """The names of a crate's tests, and those of trials that stand in a table of a test program of its own."""
    tests, trials = set(), set()
    for folder in ("src", "tests"):
        for path in (crates.ROOT / "crates" / crate / folder).rglob("*.rs"):
            text = path.read_text()
            tests.update(re.findall(r"#\[(?:tokio::)?test[^\n]*\](?:\s*#\[[^\n]*\])*\s*(?:async )?fn (\w+)\(", text))
            trials.update(name for name, function in re.findall(r'\("(\w+)", (\w+)\)', text) if name == function)
    return tests, trials


def there(tests):
    bad = []
    for crate, names in tests.items():
        found = set().union(*in_sources(crate))
        bad += [f"{crate}: no test {name}" for name in names if name not in found]
    return bad, f"{sum(map(len, tests.values()))} tests of {len(tests)} crates are there"


def command(tests):
    packages = [word for crate in tests for word in ("-p", crate)]
    if subprocess.run(["cargo", "nextest", "--version"], capture_output=True).returncode == 0:
        wanted = " or ".join(f"(package({crate}) and test(/(^|::)({'|'.join(names)})$/))" for crate, names in tests.items())
        return ["cargo", "nextest", "run", "--no-fail-fast", "--color=never", "--status-level=pass", *packages, "-E", wanted]
    # Each name is found in longer ones as well, which does no harm.
    names = sorted({name for names in tests.values() for name in names})
    return ["cargo", "test", "--no-fail-fast", "--color=never", "--lib", "--bins", "--tests", *packages, "--", *names]


def run(tests):
    done = subprocess.run(command(tests), cwd=crates.ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    # nextest: `PASS [time] (n/m) memobuild-oci::registry tokens::name`; cargo test: `test tokens::name ... ok`.
    passed = set(re.findall(r"^\s*PASS \[.*?\](?: \(.*?\))? ([\w-]+)(?:::\S+)? (?:\S*::)?(\w+)$", done.stdout, re.MULTILINE))
    alone = set(re.findall(r"^test (?:\S*::)?(\w+) +\.\.\. ok$", done.stdout, re.MULTILINE))
    bad, left = [], 0
    for crate, names in tests.items():
        # The sandbox's trials are for root, who plays ordinary users too.
        for_root = in_sources(crate)[1] if os.geteuid() != 0 else set()
        for name in names:
            if (crate, name) not in passed and name not in alone:
                if name in for_root:
                    left += 1
                else:
                    bad.append(f"{crate}: {name} did not run, or failed")
    if done.returncode != 0 or bad:
        return [*done.stdout.splitlines()[-60:], *bad, f"cargo ended with {done.returncode}"], ""
    count = sum(map(len, tests.values())) - left
    return [], f"{count} tests of {len(tests)} crates passed" + (f"; {left} need root and did not run" if left else "")


bad, summary = {"there": there, "run": run}[sys.argv[1]](listed())
print("\n".join(bad) if bad else summary)
sys.exit(1 if bad else 0)
