"""Directories in memory, for what a disk would add to both sides of a comparison, and not evenly."""
import os, shutil, tempfile
from pathlib import Path


def directory(name):
    """A new directory in memory, on a tmpfs that can also be an overlay's upper side; none where there is no such or no
    room."""
    at = Path("/dev/shm")
    kernel = tuple(int(n) for n in os.uname().release.split(".")[:2])
    if kernel >= (6, 6) and os.path.ismount(at) and shutil.disk_usage(at).free > 2 << 30:
        return Path(tempfile.mkdtemp(prefix=f"memobuild-{name}-", dir=at))
    return None
