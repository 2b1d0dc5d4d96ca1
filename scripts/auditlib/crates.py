"""The crates that memobuild is made of: what cargo, Cargo.lock and deny.toml say of them. For scripts/sbom and checks.py.
Nothing is compiled. Needs Python 3.11, which reads TOML."""
import json, re, subprocess, tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
CRATES_IO = "registry+https://github.com/rust-lang/crates.io-index"
TARGET = "x86_64-unknown-linux-gnu"


def cargo(*arguments):
    done = subprocess.run(["cargo", *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise SystemExit(f"cargo {arguments[0]}: {done.stderr.strip()}")
    return done.stdout


def metadata():
    """All packages, with all features, of every platform."""
    return json.loads(cargo("metadata", "--locked", "--all-features", "--format-version", "1"))


def lock(path=ROOT / "Cargo.lock"):
    return tomllib.loads(path.read_text())["package"]


def policy():
    return tomllib.loads((ROOT / "deny.toml").read_text())


def program(target=TARGET, package="memobuild"):
    """What a package is made of for one platform, with its default features: {(name, version): (whether it only runs in
    the compiler, its dependencies)}. cargo's metadata joins the features of all workspace members and of tests, and so
    names crates that are not in the program; its tree does not."""
    text = cargo("tree", "--locked", "-p", package, "-e", "normal", "--target", target, "--prefix", "depth", "-f", "|{p}")
    line = re.compile(r"(\d+)\|(\S+) v(\S+)(.*)")
    crates, way = {}, []
    for depth, name, version, rest in (line.fullmatch(each).groups() for each in text.splitlines() if each):
        crate = name, version
        macro, uses = crates.get(crate, (False, set()))
        crates[crate] = macro or "(proc-macro)" in rest, uses
        del way[int(depth):]
        if way:
            crates[way[-1]][1].add(crate)
        way.append(crate)
    return crates


def longest_way(crates, root):
    """The longest chain of dependencies."""
    known = {}

    def below(crate):
        if crate not in known:
            known[crate] = [crate, *max((below(use) for use in sorted(crates[crate][1])), key=len, default=[])]
        return known[crate]

    return below(root)


def expression(text):
    """A licence as an SPDX expression; the older way of writing had a slash for OR."""
    return re.sub(r"\s*/\s*", " OR ", text.strip())


def satisfied(text, allowed):
    """Whether the allowed licences do for an SPDX expression. AND binds closer than OR, WITH closer than both."""
    words = re.findall(r"[()]|[^\s()]+", expression(text))

    def either():
        good = both()
        while words and words[0] == "OR":
            del words[0]
            good = both() or good
        return good

    def both():
        good = one()
        while words and words[0] == "AND":
            del words[0]
            good = one() and good
        return good

    def one():
        word = words.pop(0)
        if word == "(":
            good = either()
            if words.pop(0) != ")":
                raise ValueError(text)
            return good
        if word in (")", "AND", "OR", "WITH"):
            raise ValueError(text)
        if words and words[0] == "WITH":
            word = f"{word} WITH {words[1]}"
            del words[:2]
        return word in allowed

    try:
        good = either()
    except IndexError:
        raise ValueError(text) from None
    if words:
        raise ValueError(text)
    return good
