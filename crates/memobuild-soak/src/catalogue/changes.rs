//! Steps that change files below: what was there counts.

use super::{Draw, Need, Way, entry, lines};
use crate::project::{Poke, Step};

pub(super) const ENTRIES: &[Way] = &[
    entry("write-read", Need::Nothing, write_read),
    entry("delete", Need::Nothing, delete),
    entry("append", Need::Nothing, append),
    entry("truncate", Need::Nothing, truncate),
    entry("hard-link", Need::Nothing, hard_link),
    entry("chmod", Need::Nothing, chmod),
    entry("rename-dir", Need::Nothing, rename_dir),
    entry("rename-file", Need::Nothing, rename_file),
    entry("remove-dir", Need::Nothing, remove_dir),
    entry("replace", Need::Nothing, replace),
    entry("copy-all", Need::Nothing, copy_all),
    entry("tar", Need::Nothing, tar),
    entry("exclusive", Need::Nothing, exclusive),
    entry("exchange", Need::Probe, exchange),
    entry("merge", Need::Nothing, merge),
    entry("edit-in-place", Need::Nothing, edit_in_place),
];

fn write_read(d: &mut Draw<'_>) -> Vec<Step> {
    let (x, n) = (d.file(), d.id());
    vec![d.run(
        lines!["cat /src/{x} >/w/r{n}; echo end >>/w/r{n}; cat /w/r{n}; mv /w/r{n} /w/q{n}; rm /w/q{n}; ls /w/r{n}"],
        vec![Poke::Content(x)],
    )]
}

fn delete(d: &mut Draw<'_>) -> Vec<Step> {
    let (x, y) = (d.absent(), d.file());
    vec![
        d.run(
            lines!["rm -f /src/{x}", "rm /src/{y} && echo gone", "ls /src/{y}"],
            vec![Poke::Exist(x), Poke::Exist(y)],
        ),
    ]
}

fn append(d: &mut Draw<'_>) -> Vec<Step> {
    let x = d.file();
    vec![
        d.run(
            lines!["echo more >>/src/{x}"],
            vec![Poke::Content(x.clone()), Poke::Mode(x.clone()), Poke::Exist(x.clone())],
        ),
        d.run(lines!["tail -n 2 /src/{x}"], vec![]),
    ]
}

/// The old content does not count, the mode does.
fn truncate(d: &mut Draw<'_>) -> Vec<Step> {
    let (x, y) = (d.file(), d.absent());
    vec![d.run(
        lines![": >/src/{x}", "echo other >/src/{y}", "stat -c %a /src/{x}"],
        vec![Poke::Mode(x.clone()), Poke::Content(x), Poke::Exist(y)],
    )]
}

fn hard_link(d: &mut Draw<'_>) -> Vec<Step> {
    let (x, n) = (d.file(), d.id());
    vec![
        d.run(lines!["ln /src/{x} /w/h{n} && ln /w/h{n} /w/i{n}"], vec![Poke::Content(x.clone()), Poke::Mode(x)]),
        d.run(lines!["stat -c %h /w/h{n}", "echo more >>/w/i{n}", "cat /w/h{n}"], vec![]),
    ]
}

fn chmod(d: &mut Draw<'_>) -> Vec<Step> {
    let (x, dir) = (d.file(), d.rng.word(&["a/deep", "b/x", "data/sub"]));
    vec![d.run(
        lines!["chmod 600 /src/{x}", "chmod -R go-rwx /src/{dir}", "chmod u+s,+t /src/{x}"],
        vec![Poke::Mode(x.clone()), Poke::Content(x), Poke::Member(dir.clone()), Poke::Mode(dir)],
    )]
}

fn rename_dir(d: &mut Draw<'_>) -> Vec<Step> {
    let (dir, n) = (d.rng.word(&["a/deep", "b/x", "data/sub"]), d.id());
    let pokes = vec![Poke::Member(dir.clone()), Poke::Content(format!("{dir}/g1.txt")), Poke::Mode(dir.clone())];
    if d.rng.percent(40) {
        vec![d.run(lines!["mv /src/{dir} /src/{dir}.moved; ls /src/{dir}.moved"], pokes)]
    } else {
        vec![
            d.run(lines!["mkdir /w/n{n}; cp -r /src/{dir} /w/n{n}/from"], pokes),
            d.run(lines!["mv /w/n{n}/from /w/n{n}/to; ls /w/n{n}/to; ls /w/n{n}"], vec![]),
        ]
    }
}

fn rename_file(d: &mut Draw<'_>) -> Vec<Step> {
    let (x, y) = (d.file(), d.file());
    vec![d.run(
        lines!["mv /src/{x} /src/{x}.old; ls /src/{x}.old; mv -f /src/{x}.old /src/{y}; cat /src/{y}"],
        vec![Poke::Content(x.clone()), Poke::Exist(x), Poke::Exist(y)],
    )]
}

fn remove_dir(d: &mut Draw<'_>) -> Vec<Step> {
    let dir = d.rng.word(&["a/deep", "b/x", "data/sub", "data/empty"]);
    let again = d.rng.percent(50);
    let mut all = vec![format!("rmdir /src/{dir} && echo was empty"), format!("rm -rf /src/{dir}")];
    if again {
        all.push(format!("mkdir /src/{dir}; echo new >/src/{dir}/new"));
    }
    vec![d.run(&all, vec![Poke::Member(dir.clone()), Poke::Kind(dir.clone()), Poke::Member(dir)])]
}

fn replace(d: &mut Draw<'_>) -> Vec<Step> {
    let dir = d.rng.word(&["a/deep", "b/x", "data/sub"]);
    let new = d.rng.word(&["echo file >", "ln -s ../b ", "mkdir ", "mkfifo "]);
    vec![
        d.run(
            lines!["rm -rf /src/{dir}; {new}/src/{dir}; ls -d /src/{dir}"],
            vec![Poke::Kind(dir.clone()), Poke::Member(dir.clone())],
        ),
        d.run(lines!["[ -d /src/{dir} ] && ls /src/{dir} || echo no directory"], vec![]),
    ]
}

fn copy_all(d: &mut Draw<'_>) -> Vec<Step> {
    let (dir, n) = (d.rng.word(&["a", "b", "data"]), d.id());
    let x = d.file();
    vec![d.run(
        lines!["cp -a /src/{dir} /w/a{n}; find /w/a{n} | sort", "cp -r /src/{dir}/. /w/b{n}/"],
        vec![Poke::Member(dir.clone()), Poke::Mode(x.clone()), Poke::Content(x), Poke::Target("a/l0".into())],
    )]
}

fn tar(d: &mut Draw<'_>) -> Vec<Step> {
    let (dir, n) = (d.dir(), d.id());
    vec![d.run(
        lines![
            "mkdir /w/t{n}; tar -C /src/{dir} -cf - . | tar -C /w/t{n} -xf -",
            "tar -C /src/{dir} -cf - . | tar -tf - | sort"
        ],
        vec![Poke::Member(dir.clone()), Poke::Mode(dir)],
    )]
}

fn exclusive(d: &mut Draw<'_>) -> Vec<Step> {
    let (x, y, n) = (d.absent(), d.absent(), d.id());
    vec![d.run(
        lines![
            "mkdir /src/{x} && echo made || echo was there",
            "ln -s target /src/{y} && echo linked || echo was there too",
            "(set -C; echo new >/w/e{n}) && echo new || echo old",
            "mkdir -p /src/a/newdir/deeper; ls /src/a/newdir/deeper",
        ],
        vec![Poke::Exist(x), Poke::Exist(y), Poke::Exist("a/newdir/deeper/x".into())],
    )]
}

fn exchange(d: &mut Draw<'_>) -> Vec<Step> {
    let (x, y) = (d.file(), d.file());
    vec![d.run(
        lines!["probe exchange /src/{x} /src/{y}", "cat /src/{x} /src/{y}"],
        vec![Poke::Content(x.clone()), Poke::Exist(y), Poke::Mode(x)],
    )]
}

/// Copies into directories that are there, over files and links that are there.
fn merge(d: &mut Draw<'_>) -> Vec<Step> {
    let (one, two) = (d.rng.word(&["a/deep", "data/sub"]), d.rng.word(&["b/x", "a"]));
    vec![d.run(
        lines!["cp -r /src/{one}/. /src/{two}/", "ls /src/{two}", "cp /src/a/f0.txt /src/a/l1; cat /src/b/f1.txt"],
        vec![
            Poke::Member(one),
            Poke::Exist(format!("{two}/g1.txt")),
            Poke::Target("a/l1".into()),
            Poke::Kind("a/l1".into()),
        ],
    )]
}

fn edit_in_place(d: &mut Draw<'_>) -> Vec<Step> {
    let x = d.file();
    vec![d.run(
        lines!["sed -i 's/e/E/g' /src/{x} 2>/dev/null || echo not edited; cat /src/{x}; stat -c '%a %u' /src/{x}"],
        vec![Poke::Content(x.clone()), Poke::Mode(x.clone()), Poke::Exist(x)],
    )]
}
