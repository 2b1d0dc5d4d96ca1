"""Registries: pushes, pulls and shared caches against a docker-registry on loopback, beside buildah and skopeo.

The server is the same for all, and keeps what it is sent in memory: its disk, which takes what it takes, is not what is
compared. What it costs alone is shown by curl sending the same bytes."""
import json, os, shutil, socket, subprocess, time
from . import memory

MB = 1 << 20


class Registry:
    """docker-registry; started anew, and empty, for each measurement that wants it so."""

    def __init__(self, work):
        self.work, self.process = work, None
        self.data = memory.directory("registry") or work / "registry"
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.host = f"127.0.0.1:{self.port}"

    def start(self, keep=False):
        self.stop()
        if not keep:
            shutil.rmtree(self.data, ignore_errors=True)
        config = self.work / "registry.yml"
        config.write_text(f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {self.data}}}}}\n"
                          f"http: {{addr: {self.host}}}\n")
        self.process = subprocess.Popen(["docker-registry", "serve", str(config)], stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                break
            except OSError:
                time.sleep(0.02)
        os.sync()  # nobody's time pays for what was written before

    def stop(self):
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
        shutil.rmtree(self.data, ignore_errors=True)


def measure(bench):
    with Registry(bench.work) as registry:
        pushes(bench, registry)
        pulls(bench, registry)
        caches(bench, registry)


def buildah(bench):
    root = bench.work / "buildah"
    return ["buildah", "--root", str(root / "root"), "--runroot", str(root / "run"), "--storage-driver", "overlay"]


def pushes(bench, registry):
    """An image of 256 MB in four layers that was just built, and the same with one small layer more."""
    from __main__ import Run, alternate, median, size_of
    context = bench.work / "push-context"
    for n in range(4):
        bench.fill(context / f"data{n}", 64, seed=n)
    (context / "small").write_text("1")
    lines = "FROM scratch\n" + "".join(f"COPY data{n} /data{n}\n" for n in range(4)) + "COPY small /small\n"
    (context / "Dockerfile").write_text(lines)
    cache = bench.fresh("push")
    bench.memobuild(context, cache, "-t", f"{registry.host}/ours:1")
    bench.buildah_forget()
    bench.buildah(context, "-f", str(context / "Dockerfile"), "-t", f"{registry.host}/theirs:1")
    layout = bench.work / "push-layout"
    copy = bench.work / "cache" / "push-copy"

    def ours():
        registry.start()
        # Nothing is compressed yet: neither here nor in buildah's storage.
        shutil.rmtree(copy, ignore_errors=True)
        subprocess.run(["cp", "-a", str(cache), str(copy)], check=True)
        os.sync()
        run = bench.measured([bench.exe, "push", "-q", f"{registry.host}/ours:1"], copy)
        sizes["ours"] = size_of(registry.data)
        return run

    def theirs():
        registry.start()
        run = Run(buildah(bench) + ["push", "-q", "--tls-verify=false", f"{registry.host}/theirs:1"])
        sizes["theirs"] = size_of(registry.data)
        return run
    # All layers are compressed and all sent: 85% of what ours takes is deflate on both cores, and so is buildah's. The
    # registry's own work is in both. Speed is worth nothing if what is sent is much larger.
    sizes = {}
    a, b = alternate(bench.rounds, ours, theirs)
    a, b = median(a), median(b)
    bench.row("push of 256 MB just built, cold", f"{a:.2f} s, {sizes['ours'] / MB:.0f} MB",
              "half of buildah's time, 2.5% larger at most", 2 * a <= b and sizes["ours"] <= 1.025 * sizes["theirs"],
              f"buildah {b:.2f} s ({b / a:.1f} x), {sizes['theirs'] / MB:.0f} MB")

    def ours_from_nothing():
        registry.start()
        return bench.memobuild(context, bench.fresh("push-all"), "--push", "-t", f"{registry.host}/ours:1")

    def theirs_from_nothing():
        registry.start()
        bench.buildah_forget()
        bud = ["bud", "-q", "--layers", "--isolation", "chroot", "-t", f"{registry.host}/theirs:1", str(context)]
        built = Run(buildah(bench) + bud)
        pushed = Run(buildah(bench) + ["push", "-q", "--tls-verify=false", f"{registry.host}/theirs:1"])
        built.seconds += pushed.seconds
        return built
    a, b = alternate(bench.rounds, ours_from_nothing, theirs_from_nothing)
    a, b = median(a), median(b)
    bench.row("build and push of 256 MB, nothing cached", f"{a:.2f} s", "half of buildah's time", 2 * a <= b,
              f"buildah {b:.2f} s ({b / a:.1f} x)")

    # One small layer changed: all else is there.
    def change(n):
        (context / "small").write_text(str(n))
        bench.memobuild(context, copy, "-t", f"{registry.host}/ours:1")
        bench.buildah(context, "-f", str(context / "Dockerfile"), "-t", f"{registry.host}/theirs:1")
    registry.start()
    bench.measured([bench.exe, "push", "-q", f"{registry.host}/ours:1"], copy)
    Run(buildah(bench) + ["push", "-q", "--tls-verify=false", f"{registry.host}/theirs:1"])
    shutil.rmtree(layout, ignore_errors=True)
    rows = [[], [], []]
    # Some milliseconds each: more rounds, and nobody's time pays for what was written to the disk before.
    for n in range(3 * bench.rounds):
        change(n + 2)
        os.sync()
        rows[0].append(bench.measured([bench.exe, "push", "-q", f"{registry.host}/ours:1"], copy))
        os.sync()
        rows[1].append(Run(buildah(bench) + ["push", "-q", "--tls-verify=false", f"{registry.host}/theirs:1"]))
        # skopeo has no storage of layers to make blobs from: it gets them ready-made.
        bench.measured([bench.exe, "export", f"{registry.host}/ours:1", "-o", f"type=oci,tar=false,dest={layout}"], copy)
        os.sync()
        rows[2].append(Run(["skopeo", "copy", "-q", "--insecure-policy", "--dest-tls-verify=false", f"oci:{layout}:1",
                            f"docker://{registry.host}/skopeo:1"]))
    a, b, c = (median(r) for r in rows)
    bench.row("push again, one small layer changed", f"{a * 1e3:.0f} ms", "half of the time of either",
              2 * a <= min(b, c), f"buildah {b * 1e3:.0f} ms ({b / a:.1f} x), skopeo {c * 1e3:.0f} ms ({c / a:.1f} x)")

    # Blobs at hand on both sides: what is left is the transfer, and the server's part of it.
    blobs = sorted((layout / "blobs/sha256").iterdir(), key=lambda p: -p.stat().st_size)[:4]

    def ready():
        registry.start()
        return bench.measured([bench.exe, "push", "-q", f"{registry.host}/ours:1"], copy)

    def skopeo():
        registry.start()
        return Run(["skopeo", "copy", "-q", "--insecure-policy", "--dest-tls-verify=false", f"oci:{layout}:1",
                    f"docker://{registry.host}/skopeo:1"])

    def curl():
        """The least that a push can cost: the blobs sent by four curls at once, each in one request."""
        registry.start()
        script = "".join(
            f'(place=$(curl -sf -X POST -D - -o /dev/null http://{registry.host}/v2/curl/blobs/uploads/ |'
            f" tr -d '\\r' | sed -n 's/^Location: //p'); curl -sf -T {p} -H 'content-type: application/octet-stream'"
            f' "$place&digest=sha256:{p.name}" >/dev/null) &\n' for p in blobs)
        return Run(script + "wait")
    a, b, c = alternate(bench.rounds, ready, skopeo, curl)
    a, b, c = median(a), median(b), median(c)
    # Nobody can be faster than the server: four curls, which do nothing but send, are the floor.
    bench.row("push of 256 MB, layers compressed before", f"{a:.2f} s", "half of skopeo's time, at most 1.5 x four curls",
              2 * a <= b and a <= 1.5 * c, f"skopeo {b:.2f} s ({b / a:.1f} x), curls {c:.2f} s ({c / a:.2f} x)")


def pulls(bench, registry):
    """A fresh machine: a base of 130 MB is fetched and the first command runs on it."""
    from __main__ import Run, alternate, median
    layout = bench.work / "pull-layout"
    if not layout.exists():
        base = big_base_with_shell(bench)
        shutil.copytree(base, layout)
    registry.start()
    Run(["skopeo", "copy", "-q", "--insecure-policy", "--dest-tls-verify=false", f"oci:{layout}:latest",
         f"docker://{registry.host}/base:1"])
    copied = bench.work / "pull-copied"

    def pull():
        return bench.measured([bench.exe, "pull", "-q", f"{registry.host}/base:1"], bench.fresh("pulled"))

    def skopeo():
        shutil.rmtree(copied, ignore_errors=True)
        return Run(["skopeo", "copy", "-q", "--insecure-policy", "--src-tls-verify=false",
                    f"docker://{registry.host}/base:1", f"oci:{copied}:1"])
    a, b = alternate(bench.rounds, pull, skopeo)
    a, b = median(a), median(b)
    bench.row("cold pull of a 130 MB base, as it is", f"{a * 1e3:.0f} ms", "half of skopeo's time", 2 * a <= b,
              f"skopeo {b * 1e3:.0f} ms ({b / a:.1f} x)")
    context = bench.work / "pull-context"
    context.mkdir(exist_ok=True)
    (context / "Dockerfile").write_text(f"FROM {registry.host}/base:1\nRUN echo hi > /hi\n")

    def theirs():
        bench.buildah_forget()
        return Run(buildah(bench) + ["bud", "-q", "--layers", "--isolation", "chroot", "--tls-verify=false", str(context)])
    a, b = alternate(bench.rounds, lambda: bench.memobuild(context, bench.fresh("pull")), theirs)
    a, b = median(a), median(b)
    bench.row("cold pull of a 130 MB base, and a first RUN", f"{a:.2f} s", "half of buildah's time", 2 * a <= b,
              f"buildah {b:.2f} s ({b / a:.1f} x)")


def big_base_with_shell(bench):
    """The base of other rows, 130 MB in one layer, on top of busybox."""
    files = bench.work / "pull-files"
    bench.fill(files, 130)
    context = bench.work / "pull-base"
    context.mkdir(exist_ok=True)
    (context / "Dockerfile").write_text("FROM busybox\nCOPY --from=files / /opt/data/\n")
    out = bench.work / "pull-base-layout"
    bench.memobuild(context, bench.fresh("pull-base"), "--build-context", f"files={files}", "-t", "x:latest",
                    output=f"type=oci,tar=false,dest={out}")
    return out


def caches(bench, registry):
    """A build of 20 steps over the 130 MB base: exported to a cache in the registry, and taken up by a machine that has
    nothing."""
    from __main__ import Run, alternate, median
    context = bench.work / "cache-context"
    context.mkdir(exist_ok=True)
    (context / "file").write_text("x")
    bench.fill(context / "data", 24)
    body = "COPY data /data\n" + "".join(f"RUN cat /data/d{n}/* | sha256sum > /sum{n}\n" for n in range(18)) + "COPY file /f\n"
    (context / "Dockerfile").write_text(f"FROM {registry.host}/base:1\n{body}")
    cache = bench.fresh("share")
    bench.memobuild(context, cache)
    to = f"type=registry,ref={registry.host}/cache:ours,mode=max"
    copy = bench.work / "cache" / "share-copy"

    def export():
        shutil.rmtree(copy, ignore_errors=True)
        subprocess.run(["cp", "-a", str(cache), str(copy)], check=True)
        forget(registry, "cache")
        os.sync()
        return bench.memobuild(context, copy, "--cache-to", to)
    bench.buildah_forget()
    bud = buildah(bench) + ["bud", "-q", "--layers", "--isolation", "chroot", "--tls-verify=false"]
    Run(bud + [str(context)])

    def theirs():
        forget(registry, "theirs")
        os.sync()
        return Run(bud + ["--cache-to", f"{registry.host}/theirs", str(context)])
    a, b = alternate(bench.rounds, export, theirs)
    a, b = median(a), median(b)
    bench.row("export of a cache of 20 steps that are known", f"{a:.2f} s", "half of buildah's time", 2 * a <= b,
              f"buildah {b:.2f} s ({b / a:.1f} x)")

    source = f"{registry.host}/cache:ours"

    def cold_theirs():
        bench.buildah_forget()
        return Run(bud + ["--cache-from", f"{registry.host}/theirs", str(context)])
    a, b = alternate(bench.rounds, lambda: bench.memobuild(context, bench.fresh("taken-up"), "--cache-from", source),
                     cold_theirs)
    a, b = median(a), median(b)
    bench.row("20 unchanged steps on a cold machine, by that cache", f"{a * 1e3:.0f} ms", "at most 500 ms, half of buildah's time",
              a <= 0.5 and 2 * a <= b, f"buildah {b:.2f} s ({b / a:.0f} x)")

    (context / "file").write_text("y")
    a, b = alternate(bench.rounds, lambda: bench.memobuild(context, bench.fresh("taken-up"), "--cache-from", source),
                     cold_theirs)
    a, b = median(a), median(b)
    bench.row("the same with the last file changed", f"{a * 1e3:.0f} ms", "half of buildah's time", 2 * a <= b,
              f"buildah {b:.2f} s ({b / a:.0f} x)")


def forget(registry, repository):
    """Takes a repository out of the registry, with its blobs, so that the next export is a first one; the base stays."""
    data = registry.work / "registry/docker/registry/v2"
    shutil.rmtree(data / "repositories" / repository, ignore_errors=True)
    wanted = set()
    for link in (data / "repositories").glob("*/_*/**/link"):
        wanted.add(link.read_text().removeprefix("sha256:"))
    for blob in (data / "blobs/sha256").glob("*/*"):
        if blob.name not in wanted:
            shutil.rmtree(blob)
    registry.start(keep=True)
