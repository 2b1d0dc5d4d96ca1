python3 - <<'PY'
import gzip, hashlib, io, json, os, tarfile
root = "../img"
os.makedirs(root + "/blobs/sha256")
def put(data, kind):
    h = hashlib.sha256(data).hexdigest()
    open(root + "/blobs/sha256/" + h, "wb").write(data)
    return {"mediaType": "application/vnd.oci.image." + kind, "digest": "sha256:" + h, "size": len(data)}
def layer(entries):
    buf = io.BytesIO()
    t = tarfile.open(fileobj=buf, mode="w", format=tarfile.PAX_FORMAT)
    for name, kind, data, extra in entries:
        i = tarfile.TarInfo(name)
        i.type = {"f": tarfile.REGTYPE, "d": tarfile.DIRTYPE, "l": tarfile.SYMTYPE, "h": tarfile.LNKTYPE}[kind]
        i.mode, i.mtime = 0o755 if kind == "d" else 0o644, 1000000000
        if kind in "lh":
            i.linkname, data = data, b""
        for k, v in extra.items():
            setattr(i, k, v)
        i.size = len(data)
        t.addfile(i, io.BytesIO(data) if data else None)
    t.close()
    return buf.getvalue()
shell = [("bin", "d", b"", {}), ("bin/busybox", "f", open("/bin/busybox", "rb").read(), {"mode": 0o755}),
         ("bin/sh", "l", "busybox", {})] + [("bin/" + n, "l", "busybox", {}) for n in "cat chmod cp echo env find id ln ls mkdir mv rm sort stat touch true".split()]
d, f = (lambda n, **k: (n, "d", b"", k)), (lambda n, data=b"", **k: (n, "f", data, k))
l, h = (lambda n, to: (n, "l", to, {})), (lambda n, to: (n, "h", to, {}))
layers = [shell]
raw = [layer(e) for e in layers]
config = {"config": {"Env": ["PATH=/bin"], "WorkingDir": "/not/there"}}
image = {"architecture": {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine], "os": "linux", "rootfs": {"type": "layers",
         "diff_ids": ["sha256:" + hashlib.sha256(r).hexdigest() for r in raw]}, **config}
enc = lambda o: json.dumps(o).encode()
man = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": put(enc(image), "config.v1+json"),
       "layers": [put(gzip.compress(r, 6, mtime=0), "layer.v1.tar+gzip") for r in raw]}
m = put(enc(man), "manifest.v1+json")
open(root + "/index.json", "wb").write(enc({"schemaVersion": 2, "manifests": [m]}))
open(root + "/oci-layout", "w").write('{"imageLayoutVersion":"1.0.0"}')
PY
