"""What tracing costs a step, and how long a look-up by facts takes: rows of scripts/bench.

A Debian root with compilers, Python, Node and Cargo (made once by mmdebstrap and kept below target/) becomes a base
image; crates/memobuild-engine/benches/steps.rs runs each command in the sandbox and over a plain overlay on the same
files, alternately, with a fresh mount for each. lookup.rs times decisions by facts."""
import hashlib, json, os, random, shutil, subprocess, sys
from pathlib import Path

from . import memory

PACKAGES = "gcc,libc6-dev,make,python3,nodejs,npm,cargo,ca-certificates"
NPM = {"express": "^4", "lodash": "^4", "typescript": "^5", "eslint": "^8"}

# name, command, and two bars: at most so many times a plain overlay, and at most so many milliseconds more; first where
# large files are read natively (Linux 6.16), then where they come through FUSE. The latter cannot be as good: each step
# has a page cache of its own, so what it reads of a compiler is copied once for each step (some 100 MB of rustc and LLVM,
# 40 MB of node or gcc, at about 1 GB/s). So steps of seconds may take 1.4 times as long, short ones twice, and 60 ms more.
CASES = [
    ("gcc of 40 files", "mkdir /o; for i in $(seq 40); do gcc -O1 -c /work/c/f$i.c -o /o/f$i.o || exit 1; done",
     (1.15, None), (1.4, None)),
    ("cargo build", "cp -r /work/crate /tmp/c && cd /tmp/c && CARGO_HOME=/tmp/h cargo build -q --offline",
     (1.15, None), (1.4, None)),
    ("npm ci", "cp -r /work/npm /tmp/n && cd /tmp/n && npm ci --offline --no-audit --no-fund --cache /work/npm-cache"
               " --logs-max=0 >/dev/null", (1.15, None), (1.4, None)),
    ("untar of 5,000", "mkdir /x && tar -xf /work/many.tar -C /x", (1.15, None), (1.4, None)),
    ("stat of 50,000", "find /work/files -type f -printf '%s' >/dev/null", (2.0, None), (2.0, None)),
    ("node", "node -e 0", (1.5, 30), (2.0, 60)),
    ("python", "python3 -c 'import json, re, subprocess'", (1.5, 30), (2.0, 60)),
    ("gcc hello", "gcc -o /hello /work/c/f1.c -c", (1.5, 30), (2.0, 60)),
]


def base(root):
    """A docker archive with the root, made once. None where no mirror answers."""
    kept = root / "target" / "bench-base"
    archive = kept / "archive"
    if (archive / "manifest.json").exists():
        return archive
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True)
    at = kept / "root"
    return pack(at, archive) if bootstrap(at) else None


def bootstrap(at):
    """Makes the root; says whether a mirror answered."""
    if not shutil.which("mmdebstrap"):
        subprocess.run(["apt-get", "install", "-y", "-qq", "mmdebstrap"], check=True, stdout=subprocess.DEVNULL)
    mirror = os.environ.get("DEBIAN_MIRROR") or mirror_of_this_machine()
    made = subprocess.run(["mmdebstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(at), mirror],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if made.returncode != 0:
        print("skipped: no Debian mirror answers:\n" + "\n".join(made.stdout.splitlines()[-5:]))
    return made.returncode == 0


def pack(at, archive):
    """The root with what the commands work on, as an archive; the root is gone afterwards."""
    shutil.rmtree(at / "var/cache/apt/archives", ignore_errors=True)
    (at / "etc/apt/sources.list").write_text("")
    fill(at / "work")
    archive.mkdir()
    tar = archive / "layer.tar"
    subprocess.run(["tar", "-C", str(at), "--numeric-owner", "--one-file-system", "-cf", str(tar), "."], check=True)
    digest = hashlib.file_digest(open(tar, "rb"), "sha256").hexdigest()
    arch = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    (archive / "config.json").write_text(json.dumps(
        {"architecture": arch, "os": "linux", "config": {},
         "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]}}))
    (archive / "manifest.json").write_text(json.dumps(
        [{"Config": "config.json", "RepoTags": ["bench:1"], "Layers": ["layer.tar"]}]))
    shutil.rmtree(at)
    return archive


def mirror_of_this_machine():
    for path in [Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*")]:
        for line in path.read_text().splitlines() if path.is_file() else []:
            words = line.split()
            if line.startswith(("URIs:", "deb ")):
                found = next((w for w in words[1:] if w.startswith("http") and w.rstrip("/").endswith("/debian")), None)
                if found:
                    return found
    return "http://deb.debian.org/debian"


def fill(work):
    """What the commands work on."""
    rng = random.Random(5)
    (work / "c").mkdir(parents=True)
    for n in range(1, 41):
        body = "".join(f"int f{n}_{k}(int x) {{ return printf(\"%d\", x * {k}) + (int)strlen(\"{rng.random()}\"); }}\n"
                       for k in range(30))
        (work / "c" / f"f{n}.c").write_text(
            "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n#include <unistd.h>\n" + body)
    for n in range(50_000):
        at = work / "files" / f"d{n // 250}"
        at.mkdir(parents=True, exist_ok=True)
        (at / f"f{n}").write_text(str(n % 977))
    many = work / "many"
    for n in range(5_000):
        at = many / f"d{n // 100}"
        at.mkdir(parents=True, exist_ok=True)
        (at / f"f{n}").write_bytes(rng.randbytes(rng.randrange(100, 8000)))
    subprocess.run(["tar", "-C", str(many), "-cf", str(work / "many.tar"), "."], check=True)
    shutil.rmtree(many)
    npm = work / "npm"
    npm.mkdir()
    (npm / "package.json").write_text(json.dumps({"name": "bench", "version": "1.0.0", "dependencies": NPM}))
    subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--silent", "--omit-lockfile-registry-resolved",
                    "--cache", str(work / "npm-cache")], cwd=npm, check=True)
    shutil.rmtree(npm / "node_modules")
    # With an address and a digest npm takes a package from its cache by the digest, whichever registry it came from.
    lock = npm / "package-lock.json"
    locked = json.loads(lock.read_text())
    for at, package in locked["packages"].items():
        if at:
            name = at.rpartition("node_modules/")[2]
            file = f"{name.rpartition('/')[2]}-{package['version']}.tgz"
            package["resolved"] = f"https://registry.npmjs.org/{name}/-/{file}"
    lock.write_text(json.dumps(locked, indent=2))
    crate = work / "crate"
    (crate / "src").mkdir(parents=True)
    # Crates that old compilers take as well.
    (crate / "Cargo.toml").write_text('[package]\nname = "bench"\nversion = "1.0.0"\nedition = "2021"\n[workspace]\n[dependencies]\n'
                                      'itoa = "=1.0.1"\nryu = "=1.0.5"\nmemchr = "=2.4.1"\nsmallvec = "=1.8.0"\n')
    (crate / "src/main.rs").write_text("fn main() { println!(\"{}\", itoa::Buffer::new().format(7)); }\n")
    subprocess.run(["cargo", "vendor", "-q", "vendor"], cwd=crate, check=True, stdout=subprocess.DEVNULL)
    # What cargo prints for it speaks of the registry that this machine is set up with.
    (crate / ".cargo").mkdir()
    (crate / ".cargo/config.toml").write_text(
        '[source.crates-io]\nreplace-with = "vendored"\n[source.vendored]\ndirectory = "vendor"\n')
    lock = crate / "Cargo.lock"
    lock.write_text(lock.read_text().replace("version = 4", "version = 3"))


def program(root, name):
    """Builds a benchmark program and gives its path."""
    out = subprocess.check_output(["cargo", "bench", "-q", "-p", "memobuild-engine", "--bench", name, "--no-run",
                                   "--message-format=json"], cwd=root, text=True)
    for line in out.splitlines():
        message = json.loads(line)
        if message.get("executable") and message["target"]["name"] == name:
            return message["executable"]
    sys.exit(f"bench: cargo made no program for {name}")


def steps(bench, root):
    """The rows of what tracing costs."""
    if os.geteuid() != 0:
        print("skipped: tracing (needs root)")
        return
    archive = base(root)
    if archive is None:
        return
    rounds = "3" if bench.args.quick else "7"
    arguments = [f"{name}={command}" for name, command, *_ in CASES]
    work = bench.work / "steps-bench"
    # On ext4 the making of files is slow for seconds after many were deleted, which each round does, on either side's account.
    upper = memory.directory("steps") or work
    command = [program(root, "steps"), str(archive), str(work), str(upper), rounds, *arguments]
    try:
        out = subprocess.check_output(command, text=True)
    finally:
        shutil.rmtree(upper, ignore_errors=True)
    for line in out.splitlines():
        *name, plain, native, served, facts = line.split()
        name, plain, native, served = " ".join(name), float(plain), float(native), float(served)
        bars = next((native, served) for n, _, native, served in CASES if n == name)
        for how, time, (factor, more) in zip(("native reads", "datadir+ off"), (native, served), bars):
            met = time <= factor * plain and (more is None or time <= plain + more)
            bar = f"at most {factor} x" + (f" and {more} ms more" if more else "")
            bench.row(f"{name}, traced, {how}", f"{time:.0f} ms ({time / plain:.2f} x), {facts} facts", bar, met,
                      f"plain overlay {plain:.0f} ms")


def lookup(bench, root):
    """The rows of decisions by facts."""
    bars = {"facts-one-set": ("under one path set", 10), "facts-20-sets": ("under 20 path sets", 50)}
    for line in subprocess.check_output([program(root, "lookup")], text=True).splitlines():
        name, time = line.split()
        what, bar = bars[name]
        bench.row(f"100 results of 3,000 facts, {what}", f"{float(time):.1f} ms", f"at most {bar} ms", float(time) <= bar)
