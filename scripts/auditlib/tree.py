#!/usr/bin/env python3
"""tree.py unsafe|secrets: what scripts/security-audit.sh asks of the files in the tree. One line if all is well, else what
is not, and exit status 1."""
import re, stat, subprocess, sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from auditlib import crates  # noqa: E402

ROOT = crates.ROOT
UNSAFE_PLACE = "crates/memobuild-sandbox/src/sys/"
UNSAFE_CRATE = "memobuild-sandbox"

# Comments (blocks nest, see below), texts and characters; what is none of them is code. A lifetime is no character.
PIECES = re.compile(r"""(?P<comment>//[^\n]*)|(?P<block>/\*)|(?P<raw>\b[bc]?r(?P<hashes>\#*)".*?"(?P=hashes))"""
                    r"""|(?P<text>\b[bc]?"(?:[^"\\]|\\.)*"|"(?:[^"\\]|\\.)*")|(?P<character>'(?:[^'\\\n]|\\[^\n]+?)')""", re.DOTALL)

SECRETS = {
    "a private key": rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----(?:\s|\\n)+[A-Za-z0-9+/=]{16}",
    "a key of AWS": rb"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "a token of GitHub": rb"\b(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{40})",
    "a token of GitLab": rb"\bglpat-[A-Za-z0-9_-]{20}",
    "a token of Slack": rb"\bxox[abprs]-[A-Za-z0-9-]{20}",
    "a key of Google": rb"\bAIza[0-9A-Za-z_-]{35}",
    "a token of npm": rb"\bnpm_[A-Za-z0-9]{36}\b",
    "a token of PyPI": rb"\bpypi-AgE[A-Za-z0-9_-]{30}",
    "a token of crates.io": rb"\bcio[A-Za-z0-9]{32}\b",
    "a token of a memobuild server": rb"\bmb_[0-9a-f]{64}\b",
    "a signed token (JWT)": rb"\beyJ[A-Za-z0-9_-]{16,}\.eyJ[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}",
    "a password in a URL": rb"[a-z]://[A-Za-z0-9._-]+:(?=[^@/\s]*[0-9])(?=[^@/\s]*[A-Za-z])[A-Za-z0-9+_-]{20,}@",
}


def files(*patterns):
    """What git keeps, or would; outside a repository, what lies there."""
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *patterns],
                            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    if listed.returncode == 0:
        paths = {ROOT / name.decode(errors="surrogateescape") for name in listed.stdout.split(b"\0") if name}
    else:
        paths = {path for pattern in patterns or ["*"] for path in ROOT.rglob(pattern)
                 if path.relative_to(ROOT).parts[0] not in (".git", "target")}
    return sorted(path for path in paths if path.is_file() and not path.is_symlink())


def split(text):
    """The code alone, and the comments alone: both as long as the text, with blanks where the other is."""
    code, comments, at = list(text), [c if c == "\n" else " " for c in text], 0

    def blank(start, end):
        for i in range(start, end):
            code[i] = text[i] if text[i] == "\n" else " "

    while piece := PIECES.search(text, at):
        start, end = piece.span()
        if piece["block"]:
            depth = 1
            while depth and (edge := re.compile(r"/\*|\*/").search(text, end)):
                depth += 1 if edge[0] == "/*" else -1
                end = edge.end()
            end = len(text) if depth else end
        if piece["block"] or piece["comment"]:
            comments[start:end] = text[start:end]
        blank(start, end)
        at = end
    return "".join(code), "".join(comments)


def is_explained(code, comments, line):
    """Whether the comment right above the statement says SAFETY (or `# Safety`, as documentation does)."""
    while line > 0:
        line -= 1
        if comments[line].strip() and not code[line].strip():
            first = line
            while first > 0 and comments[first - 1].strip() and not code[first - 1].strip():
                first -= 1
            return any(re.search(r"SAFETY:|# Safety", text) for text in comments[first:line + 1])
        before = code[line].strip()
        # An attribute, or the beginning of the statement, may stand between.
        if not before or before.endswith((";", "{", "}")):
            return False
    return False


def unsafe_code():
    bad, counts = [], {}
    for path in files("*.rs"):
        where = path.relative_to(ROOT).as_posix()
        code, comments = (part.split("\n") for part in split(path.read_text()))
        for number, text in enumerate(code):
            if re.search(r"\ballow\s*\(\s*unsafe_code", text) and not where.startswith(UNSAFE_PLACE):
                bad.append(f"{where}:{number + 1}: unsafe code is allowed outside {UNSAFE_PLACE}")
            for _ in re.finditer(r"\bunsafe\b", text):
                if not where.startswith(UNSAFE_PLACE):
                    bad.append(f"{where}:{number + 1}: unsafe code outside {UNSAFE_PLACE}")
                elif not is_explained(code, comments, number):
                    bad.append(f"{where}:{number + 1}: no SAFETY comment above it")
                counts[where] = counts.get(where, 0) + 1
    roots = 0
    for package in crates.metadata()["packages"]:
        if package["source"] is not None:
            continue
        level = "deny" if package["name"] == UNSAFE_CRATE else "forbid"
        for target in package["targets"]:
            if not {"lib", "bin", "proc-macro"} & set(target["kind"]):
                continue
            roots += 1
            code, _ = split(Path(target["src_path"]).read_text())
            if not re.search(rf"^#!\[{level}\(unsafe_code\)\]", code, re.MULTILINE):
                bad.append(f"{Path(target['src_path']).relative_to(ROOT)}: no #![{level}(unsafe_code)]")
    places = ", ".join(f"{Path(where).name} {count}" for where, count in sorted(counts.items()))
    if not counts:
        bad.append("no unsafe code is found at all: this check is of no use")
    return bad, f"all in {UNSAFE_PLACE} ({places}), each with its reason; {roots} crate roots refuse it"


def secrets():
    bad, patterns, all_files = [], {what: re.compile(pattern) for what, pattern in SECRETS.items()}, files()
    for path in all_files:
        where, mode = path.relative_to(ROOT).as_posix(), path.stat().st_mode
        if mode & stat.S_IWOTH:
            bad.append(f"{where}: anybody may write to it")
        if mode & (stat.S_ISUID | stat.S_ISGID):
            bad.append(f"{where}: runs with another's rights")
        content = path.read_bytes()
        for what, pattern in patterns.items():
            for hit in pattern.finditer(content):
                # Never the secret itself: this goes to logs.
                line = content.count(b"\n", 0, hit.start()) + 1
                bad.append(f"{where}:{line}: {what}")
    return bad, f"{len(all_files)} files, {len(patterns)} kinds of secrets"


bad, summary = {"unsafe": unsafe_code, "secrets": secrets}[sys.argv[1]]()
print("\n".join(bad) if bad else summary)
sys.exit(1 if bad else 0)
