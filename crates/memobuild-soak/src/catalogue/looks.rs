//! Steps that look at the context's files, which COPY brought.

use super::{Draw, Need, Way, entry, lines};
use crate::project::{Poke, Step};

pub(super) const ENTRIES: &[Way] = &[
    entry("read", Need::Nothing, read),
    entry("stat", Need::Nothing, stat),
    entry("size", Need::Nothing, size),
    entry("list", Need::Nothing, list),
    entry("glob", Need::Nothing, glob),
    entry("find", Need::Nothing, find),
    entry("links", Need::Nothing, links),
    entry("absent", Need::Nothing, absent),
    entry("default", Need::Nothing, default),
    entry("kinds", Need::Nothing, kinds),
    entry("odd-paths", Need::Nothing, odd_paths),
    entry("sums", Need::Nothing, sums),
    entry("compare", Need::Nothing, compare),
    entry("relative", Need::Nothing, relative),
    entry("script", Need::Nothing, script),
    entry("du", Need::Blocks, du),
    entry("base", Need::Nothing, base),
    entry("make-like", Need::Nothing, make_like),
    entry("path-search", Need::Nothing, path_search),
];

fn read(d: &mut Draw<'_>) -> Vec<Step> {
    let (x, y) = (d.file(), d.file());
    vec![d.run(
        lines!["cat /src/{x} /src/{y}", "wc -c </src/{x}", "grep -c a /src/{y}"],
        vec![Poke::Content(x.clone()), Poke::Content(y.clone()), Poke::Exist(x)],
    )]
}

fn stat(d: &mut Draw<'_>) -> Vec<Step> {
    let (x, dir) = (d.file(), d.dir());
    vec![d.run(
        lines!["stat -c '%n %a %u %g %s %F %h' /src/{x}", "stat -c '%n %a %u %g %F' /src/{dir}"],
        vec![Poke::Mode(x.clone()), Poke::Content(x), Poke::Mode(dir)],
    )]
}

fn size(d: &mut Draw<'_>) -> Vec<Step> {
    let x = d.file();
    vec![d.run(
        lines!["[ -s /src/{x} ] && echo some || echo none", "[ -x /src/{x} ] && echo runs || echo data"],
        vec![Poke::Content(x.clone()), Poke::Mode(x.clone()), Poke::Exist(x)],
    )]
}

fn list(d: &mut Draw<'_>) -> Vec<Step> {
    let dir = d.dir();
    let how = d.rng.word(&["ls", "ls -a", "ls -R", "ls -p"]);
    vec![d.run(lines!["{how} /src/{dir}"], vec![Poke::Member(dir.clone()), Poke::Member(dir)])]
}

fn glob(d: &mut Draw<'_>) -> Vec<Step> {
    let dir = d.dir();
    vec![d.run(
        lines!["echo /src/{dir}/*.txt", "echo /src/*/extra*", "for f in /src/{dir}/*; do echo \"- $f\"; done"],
        vec![Poke::Member(dir.clone()), Poke::Member(dir)],
    )]
}

fn find(d: &mut Draw<'_>) -> Vec<Step> {
    let (dir, x) = (d.dir(), d.file());
    let what = d.rng.word(&["-type f", "-name '*.txt'", "-type l", "-type d", "! -name f1.txt", "-perm -100"]);
    vec![d.run(
        lines!["find /src/{dir} {what} | sort"],
        vec![Poke::Member(dir.clone()), Poke::Kind(format!("{dir}/extra0.txt")), Poke::Mode(x)],
    )]
}

fn links(d: &mut Draw<'_>) -> Vec<Step> {
    let link = d.rng.word(&["a/l0", "a/l1", "data/dang", "data/dirl"]);
    vec![d.run(
        lines![
            "readlink /src/{link}",
            "readlink -f /src/{link}",
            "cat /src/{link} || echo no file",
            "ls /src/data/dirl/ | head -n 2",
            "[ -L /src/{link} ] && echo link",
            "[ -e /src/{link} ] && echo leads somewhere",
        ],
        vec![Poke::Target(link.clone()), Poke::Kind(link.clone()), Poke::Target(link)],
    )]
}

fn absent(d: &mut Draw<'_>) -> Vec<Step> {
    let (x, y) = (d.absent(), d.absent());
    vec![d.run(
        lines![
            "[ -e /src/{x} ] && echo there || echo not there",
            "[ -f /src/{y} ] || echo no file",
            "[ -e /src/a/newdir/deeper/x ] && echo deep || echo not deep",
        ],
        vec![Poke::Exist(x.clone()), Poke::Exist(y), Poke::Exist("a/newdir/deeper/x".into()), Poke::Exist(x)],
    )]
}

fn default(d: &mut Draw<'_>) -> Vec<Step> {
    let (x, y) = (d.absent(), d.file());
    vec![d.run(
        lines!["cat /src/{x} 2>/dev/null || echo default", "cat /src/{y} || echo default"],
        vec![Poke::Exist(x), Poke::Exist(y)],
    )]
}

fn kinds(d: &mut Draw<'_>) -> Vec<Step> {
    let dir = d.rng.word(&["a/deep", "b/x", "data/sub", "data/empty"]);
    let (x, new) = (d.file(), d.absent());
    vec![d.run(
        lines![
            "for p in /src/{dir} /src/{x} /src/{new}; do \
             if [ -L $p ]; then echo $p link; elif [ -d $p ]; then echo $p dir; \
             elif [ -f $p ]; then echo $p file; else echo $p nothing; fi; done"
        ],
        vec![Poke::Kind(dir), Poke::Kind(x), Poke::Kind(new)],
    )]
}

/// A file on the way, a link to itself, a slash behind a file, names with odd bytes.
fn odd_paths(d: &mut Draw<'_>) -> Vec<Step> {
    let x = d.file();
    vec![d.run(
        lines![
            "cat /src/{x}/below",
            "cat /src/{x}/",
            "ln -s loop /w/loop; cat /w/loop",
            "cat '/src/b/odd name' || echo no odd name",
            "cat /src/./{x} /src/a/../{x}",
            "echo '/src/b/'*' '*",
        ],
        vec![Poke::Kind(x.clone()), Poke::Exist("b/odd name".into()), Poke::Content(x)],
    )]
}

fn sums(d: &mut Draw<'_>) -> Vec<Step> {
    let dir = d.dir();
    let x = format!("{dir}/{}", d.rng.word(&["f2.txt", "g1.txt", "v3.dat", "extra1.txt"]));
    vec![d.run(
        lines!["find /src/{dir} -type f | sort | xargs md5sum", "grep -r e /src/{dir} | sort | wc -l"],
        vec![Poke::Content(x.clone()), Poke::Exist(x), Poke::Member(dir)],
    )]
}

fn compare(d: &mut Draw<'_>) -> Vec<Step> {
    let (x, y) = (d.file(), d.file());
    vec![d.run(
        lines!["cmp /src/{x} /src/{y} && echo same", "diff -r /src/a/deep /src/b/x | grep -c ^Only"],
        vec![Poke::Content(x), Poke::Content(y), Poke::Member("a/deep".into())],
    )]
}

fn relative(d: &mut Draw<'_>) -> Vec<Step> {
    let x = d.file();
    vec![d.run(
        lines!["cd /src/a/deep && pwd && cat ../f1.txt && cat ../../{x}", "cd /src/b/up && cat f0.txt && ls -d ../src"],
        vec![
            Poke::Content(x),
            Poke::Content("a/f1.txt".into()),
            Poke::Target("b/up".into()),
            Poke::Kind("a/deep".into()),
        ],
    )]
}

/// Interpreters, permission to run, a script that reads others.
fn script(d: &mut Draw<'_>) -> Vec<Step> {
    let s = format!("lib/s{}.sh", d.rng.below(6));
    vec![d.run(
        lines!["/src/{s} one two || echo did not run", "sh /src/{s}", "/src/lib/cur"],
        vec![Poke::Mode(s.clone()), Poke::Content(s.clone()), Poke::Exist(s), Poke::Target("lib/cur".into())],
    )]
}

fn du(d: &mut Draw<'_>) -> Vec<Step> {
    let (x, y) = (d.file(), d.file());
    vec![d.run(lines!["du -k /src/{x} /src/{y}", "du -kc /src/{x} /src/{x}"], vec![Poke::Content(x), Poke::Content(y)])]
}

fn base(d: &mut Draw<'_>) -> Vec<Step> {
    let what = d.rng.below(6);
    let line = match what {
        0 => "cat /usr/share/b/conf1",
        1 => "ls /usr/share/b/d",
        2 => "readlink /usr/share/b/link",
        3 => "[ -e /usr/share/b/opt ] && echo opt || echo no opt",
        4 => "stat -c '%a %u:%g %h %Y' /usr/share/b/tool /usr/share/b/twin1",
        _ => "cp -p /usr/share/b/conf1 /w/conf1; stat -c %Y /w/conf1; cat /etc/passwd | wc -l",
    };
    vec![d.run(&[line.to_owned()], vec![Poke::Base, Poke::Base])]
}

/// Builds only what is not there, as make does where times don't matter.
fn make_like(d: &mut Draw<'_>) -> Vec<Step> {
    let (x, y, n) = (d.file(), d.absent(), d.id());
    let one = d.run(
        lines!["mkdir -p /w/m{n}", "for f in /src/{x} /src/{y}; do [ -f $f ] && cp $f /w/m{n}/; done"],
        vec![Poke::Exist(y), Poke::Content(x)],
    );
    let two = d.run(
        lines!["cd /w/m{n} && for f in *.txt *.dat; do [ -e $f.o ] || wc -c <$f >$f.o; done", "ls /w/m{n}"],
        vec![],
    );
    vec![one, two]
}

/// The first of several directories that has it: all before it count as well.
fn path_search(d: &mut Draw<'_>) -> Vec<Step> {
    let name = d.rng.word(&["tool", "s1.sh", "extra0.txt"]);
    vec![d.run(
        lines![
            "PATH=/src/a:/src/b:/src/lib:$PATH; command -v {name} || echo no {name}",
            "for dir in a a/deep b lib; do [ -f /src/$dir/{name} ] && echo $dir && break; done",
        ],
        vec![
            Poke::Exist(format!("a/{name}")),
            Poke::Exist(format!("b/{name}")),
            Poke::Exist(format!("a/deep/{name}")),
            Poke::Mode(format!("lib/{name}")),
        ],
    )]
}
