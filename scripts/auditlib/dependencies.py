#!/usr/bin/env python3
"""dependencies.py licences|sources|size: what scripts/security-audit.sh asks of the dependencies. One line if all is well,
else what is not, and exit status 1."""
import hashlib, os, re, sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from auditlib import crates  # noqa: E402

# Of the program, and of all that Cargo.lock holds (tests and other platforms included). Far above what there is: a few
# more crates are a matter of review, a hundred more are an accident.
MOST_IN_PROGRAM, MOST_IN_LOCK, LONGEST_WAY = 380, 520, 28


def name(package):
    return f"{package['name']} {package['version']}"


def licences():
    allowed, packages, bad = set(crates.policy()["licenses"]["allow"]), crates.metadata()["packages"], []
    for package in packages:
        try:
            if not package["license"]:
                bad.append(f"{name(package)}: no licence is told")
            elif not crates.satisfied(package["license"], allowed):
                bad.append(f"{name(package)}: {package['license']} is not allowed by deny.toml")
        except ValueError:
            bad.append(f"{name(package)}: {package['license']!r} is no licence expression")
    return bad, f"{len(packages)} crates, {len(allowed)} licences allowed"


def archives():
    """What cargo downloaded before: {file name: path}."""
    home = Path(os.environ.get("CARGO_HOME") or Path.home() / ".cargo")
    return {path.name: path for path in home.glob("registry/cache/*/*.crate")}


def sources():
    bad, count, compared, here = [], 0, 0, archives()
    registries = {"registry+" + url for url in crates.policy()["sources"]["allow-registry"]}
    # The fuzz targets are a workspace of their own.
    for lock in (crates.ROOT / "Cargo.lock", crates.ROOT / "fuzz/Cargo.lock"):
        where = lock.relative_to(crates.ROOT)
        for package in crates.lock(lock):
            source, checksum = package.get("source"), package.get("checksum", "")
            if source is None:
                folder = crates.ROOT / "crates" / package["name"]
                if not folder.is_dir() and package["name"] != "memobuild-fuzz":
                    bad.append(f"{where}: {name(package)} comes from a path outside the workspace")
                continue
            count += 1
            if source not in registries:
                bad.append(f"{where}: {name(package)} comes from {source}")
            elif not re.fullmatch("[0-9a-f]{64}", checksum):
                bad.append(f"{where}: {name(package)} has no checksum")
            elif archive := here.get(f"{package['name']}-{package['version']}.crate"):
                compared += 1
                if hashlib.sha256(archive.read_bytes()).hexdigest() != checksum:
                    bad.append(f"{where}: {name(package)}: {archive} is not what the checksum says")
    for package in crates.metadata()["packages"]:
        if package["source"] is None:
            bad += [f"{name(package)} takes any version of {d['name']}" for d in package["dependencies"]
                    if d["req"] == "*" and d["source"] is not None]
    return bad, f"{count} entries of crates.io with checksums, {compared} of them compared with the archives"


def size():
    used, all_of_it = crates.program(), crates.lock()
    root = next(crate for crate in used if crate[0] == "memobuild")
    way = crates.longest_way(used, root)
    several = len(used) - len({crate for crate, _ in used})
    foreign = sum(not (crates.ROOT / "crates" / crate).is_dir() for crate, _ in used)
    told = [("crates in the program", len(used), MOST_IN_PROGRAM), ("crates in Cargo.lock", len(all_of_it), MOST_IN_LOCK),
            ("crates in the longest chain", len(way), LONGEST_WAY)]
    bad = [f"{count} {what}, {most} at most" for what, count, most in told if count > most]
    if bad:
        bad.append("the longest chain: " + " > ".join(crate for crate, _ in way))
    return bad, (f"{len(used)} crates in the program ({foreign} of others, {several} besides another version of the same), "
                 f"{len(all_of_it)} in Cargo.lock, {len(way)} in the longest chain")


bad, summary = {"licences": licences, "sources": sources, "size": size}[sys.argv[1]]()
print("\n".join(bad) if bad else summary)
sys.exit(1 if bad else 0)
