python3 - <<'PY'
import io, tarfile
t = tarfile.open('a.tar', 'w', format=tarfile.GNU_FORMAT)
def e(name, kind="file", data=b"", **k):
    i = tarfile.TarInfo(name)
    i.type = {"file": tarfile.REGTYPE, "dir": tarfile.DIRTYPE, "sym": tarfile.SYMTYPE, "link": tarfile.LNKTYPE,
              "fifo": tarfile.FIFOTYPE, "char": tarfile.CHRTYPE, "block": tarfile.BLKTYPE}[kind]
    i.mode = 0o755 if kind == "dir" else 0o644
    i.mtime = 1000000000
    for n, v in k.items(): setattr(i, n, v)
    i.size = len(data)
    t.addfile(i, io.BytesIO(data) if data else None)
n = "n" * 120
e(n + "/" + n, data=b"1")
e("l", "sym", linkname="/" + n + "/" + n)
e("h", "link", linkname=n + "/" + n)
t.close()
PY
