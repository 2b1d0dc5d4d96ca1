//! Other ways to reach files than a shell's: static programs, threads, io_uring, descriptors, a compiler, python.

use super::{Draw, Need, Way, entry, lines};
use crate::project::{Poke, Step};

pub(super) const ENTRIES: &[Way] = &[
    entry("own-program", Need::Nothing, own_program),
    entry("static", Need::Probe, static_program),
    entry("threads", Need::Probe, threads),
    entry("io_uring", Need::Uring, uring),
    entry("descriptors", Need::Probe, descriptors),
    entry("mmap", Need::Probe, mmap),
    entry("getdents", Need::Probe, getdents),
    entry("compile", Need::Full, compile),
    entry("includes", Need::Full, includes),
    entry("python-walk", Need::Full, python_walk),
    entry("python-import", Need::Full, python_import),
    entry("python-copy", Need::Full, python_copy),
];

fn own_program(d: &mut Draw<'_>) -> Vec<Step> {
    let n = d.id();
    vec![
        d.run(
            lines![
                "readlink /proc/self/exe",
                "cp -p /bin/busybox /w/busybox{n}; /w/busybox{n} readlink /proc/self/exe"
            ],
            vec![Poke::Base],
        ),
        d.run(lines!["/w/busybox{n} md5sum /proc/self/exe", "/w/busybox{n} cat /proc/self/comm"], vec![]),
    ]
}

fn static_program(d: &mut Draw<'_>) -> Vec<Step> {
    let (x, dir, n) = (d.file(), d.dir(), d.id());
    vec![d.run(
        lines!["cp /bin/probe /w/probe{n}; /w/probe{n} stat /src/{x} /src/{dir} /src/nowhere; /w/probe{n} exe"],
        vec![Poke::Mode(x.clone()), Poke::Content(x), Poke::Mode(dir)],
    )]
}

fn threads(d: &mut Draw<'_>) -> Vec<Step> {
    let (x, y, z, new) = (d.file(), d.file(), d.file(), d.absent());
    vec![d.run(
        lines!["probe threads /src/{x} /src/{y} /src/{z} /src/{new} /src/a/f1.txt /src/b/f2.txt"],
        vec![Poke::Content(x), Poke::Content(y), Poke::Exist(z), Poke::Exist(new)],
    )]
}

fn uring(d: &mut Draw<'_>) -> Vec<Step> {
    let (x, y, new) = (d.file(), d.file(), d.absent());
    vec![d.run(
        lines!["probe uring /src/{x} /src/{new} /src/{y}"],
        vec![Poke::Content(x.clone()), Poke::Mode(x), Poke::Exist(new), Poke::Content(y)],
    )]
}

fn descriptors(d: &mut Draw<'_>) -> Vec<Step> {
    let (x, dir) = (d.file(), d.dir());
    vec![d.run(
        lines!["probe opath /src/{x} /src/{dir} /src/a/l0", "probe beneath /src {x}", "probe beneath /src/a l1"],
        vec![Poke::Content(x.clone()), Poke::Mode(dir), Poke::Kind(x), Poke::Target("a/l1".into())],
    )]
}

fn mmap(d: &mut Draw<'_>) -> Vec<Step> {
    let (x, y) = (d.file(), d.file());
    vec![d.run(lines!["probe mmap /src/{x} /src/{y} /bin/busybox"], vec![Poke::Content(x), Poke::Content(y)])]
}

fn getdents(d: &mut Draw<'_>) -> Vec<Step> {
    let dir = d.dir();
    vec![d.run(
        lines!["probe list /src/{dir}"],
        vec![Poke::Member(dir.clone()), Poke::Kind(format!("{dir}/extra0.txt")), Poke::Member(dir)],
    )]
}

fn compile(d: &mut Draw<'_>) -> Vec<Step> {
    let n = d.id();
    vec![
        d.run(
            lines!["cd /src/c && gcc -O1 -c main.c -o /w/main{n}.o && gcc -c util.c -o /w/util{n}.o"],
            vec![Poke::Content("c/main.c".into()), Poke::Content("c/util.h".into())],
        ),
        d.run(lines!["gcc -o /w/prog{n} /w/main{n}.o /w/util{n}.o && /w/prog{n}"], vec![]),
    ]
}

/// The first directory that has the header.
fn includes(d: &mut Draw<'_>) -> Vec<Step> {
    vec![d.run(
        lines!["printf '#include \"conf.h\"\\nCONF\\n' >/w/inc.c", "gcc -E -P -I/src/c/inc1 -I/src/c/inc2 /w/inc.c",],
        vec![
            Poke::Exist("c/inc1/conf.h".into()),
            Poke::Exist("c/inc1/conf.h".into()),
            Poke::Content("c/inc2/conf.h".into()),
        ],
    )]
}

fn python_walk(d: &mut Draw<'_>) -> Vec<Step> {
    let dir = d.dir();
    let script = "import os; print(sorted((r, sorted(d), sorted(f)) for r, d, f in os.walk(\"/src\")));\
                  print(sorted((e.name, e.is_dir(), e.is_symlink()) for e in os.scandir(\"/src/a\")))";
    vec![
        d.run(
            lines!["python3 -c '{script}'"],
            vec![Poke::Member(dir.clone()), Poke::Kind(format!("{dir}/extra0.txt"))],
        ),
    ]
}

/// Modules are looked for in several places.
fn python_import(d: &mut Draw<'_>) -> Vec<Step> {
    vec![d.run(
        lines![
            "cd /src && PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=/src/a:/src/py python3 -c \
                'import mod0, mod1; print(mod0.value(), mod1.value())'"
        ],
        vec![
            Poke::Exist("a/mod0.py".into()),
            Poke::Content("py/mod0.py".into()),
            Poke::Content("py/mod1.py".into()),
            Poke::Exist("a/mod0.py".into()),
        ],
    )]
}

fn python_copy(d: &mut Draw<'_>) -> Vec<Step> {
    let (dir, n) = (d.dir(), d.id());
    let script = format!(
        "import json, pathlib, shutil; shutil.copytree(\"/src/{dir}\", \"/w/py{n}\", symlinks=True);\
         p = pathlib.Path(\"/w/py{n}\"); print(json.dumps(sorted(str(f) for f in p.rglob(\"*\"))))"
    );
    vec![d.run(lines!["python3 -c '{script}'"], vec![Poke::Member(dir.clone()), Poke::Mode(dir)])]
}
