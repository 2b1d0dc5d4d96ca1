//! COPY, ADD and WORKDIR, and what they land on; bind and cache mounts.

use super::{Draw, Need, Way, entry, lines};
use crate::project::{Poke, Step};

pub(super) const ENTRIES: &[Way] = &[
    entry("copy-flags", Need::Nothing, copy_flags),
    entry("copy-glob", Need::Nothing, copy_glob),
    entry("copy-stage", Need::Nothing, copy_stage),
    entry("copy-stage-glob", Need::Nothing, copy_stage_glob),
    entry("copy-onto", Need::Nothing, copy_onto),
    entry("copy-dir-onto", Need::Nothing, copy_dir_onto),
    entry("copy-link", Need::Nothing, copy_link),
    entry("copy-exclude", Need::Nothing, copy_exclude),
    entry("copy-inline", Need::Nothing, copy_inline),
    entry("add-archive", Need::Nothing, add_archive),
    entry("workdir", Need::Nothing, workdir),
    entry("workdir-through", Need::Nothing, workdir_through),
    entry("bind", Need::Nothing, bind),
    entry("bind-stage", Need::Nothing, bind_stage),
    entry("bind-writable", Need::Nothing, bind_writable),
    entry("cache", Need::Nothing, cache),
    entry("tmpfs", Need::Nothing, tmpfs),
];

fn copy_flags(d: &mut Draw<'_>) -> Vec<Step> {
    let (x, n) = (d.file(), d.id());
    vec![
        d.plain(
            vec![
                format!("COPY --chown=7:8 {x} /w/c{n}/a"),
                format!("COPY --chmod=640 a/deep /w/c{n}/deep"),
                format!("COPY --chmod=go-r,u+x {x} /w/c{n}/"),
            ],
            vec![Poke::Content(x.clone()), Poke::Mode(x), Poke::Member("a/deep".into())],
        ),
        d.run(lines!["find /w/c{n} | sort | xargs stat -c '%n %a %u:%g'"], vec![]),
    ]
}

fn copy_glob(d: &mut Draw<'_>) -> Vec<Step> {
    let (dir, n) = (d.dir(), d.id());
    vec![
        d.plain(
            vec![format!("COPY {dir}/*1* b/f[0-3].txt a/f0.txt /w/g{n}/")],
            vec![Poke::Exist(format!("{dir}/extra1.txt")), Poke::Content(format!("{dir}/f1.txt"))],
        ),
        d.run(lines!["ls /w/g{n}"], vec![]),
    ]
}

fn stage(d: &mut Draw<'_>) -> Option<String> {
    d.rng.pick(&d.stages).cloned()
}

fn copy_stage(d: &mut Draw<'_>) -> Vec<Step> {
    let n = d.id();
    let Some(stage) = stage(d) else { return copy_glob(d) };
    vec![
        d.plain(
            vec![format!("COPY --from={stage} /out /w/out{n}"), format!("COPY --from={stage} /w /w/got{n}")],
            vec![],
        ),
        d.run(lines!["ls -R /w/out{n} | head -n 40"], vec![]),
    ]
}

fn copy_stage_glob(d: &mut Draw<'_>) -> Vec<Step> {
    let n = d.id();
    let Some(stage) = stage(d) else { return copy_glob(d) };
    vec![d.plain(
        vec![
            format!("COPY --from={stage} /etc/passwd /out/s* /w/out{n}/"),
            format!("COPY --from={stage} --link --chmod=755 /bin/busybox /w/bin{n}/"),
        ],
        vec![],
    )]
}

/// The destination is a directory, a file or a link, as an earlier step made it.
fn copy_onto(d: &mut Draw<'_>) -> Vec<Step> {
    let (x, n) = (d.file(), d.id());
    let (knob, poke) = d.knob(&["mkdir", "touch", "ln -s other", "rm -f"]);
    vec![
        d.run(
            lines!["mkdir /w/o{n}; cd /w/o{n}; mkdir -p other; $(cat {knob}) /w/o{n}/dest"],
            vec![poke.clone(), poke],
        ),
        d.plain(vec![format!("COPY {x} /w/o{n}/dest")], vec![Poke::Content(x)]),
        d.run(lines!["find /w/o{n} | sort"], vec![]),
    ]
}

fn copy_dir_onto(d: &mut Draw<'_>) -> Vec<Step> {
    let n = d.id();
    let (knob, poke) = d.knob(&["mkdir -m 700", "ln -s other", "rm -f"]);
    vec![
        d.run(
            lines!["mkdir /w/o{n}; cd /w/o{n}; mkdir other; echo x >other/g0.txt; $(cat {knob}) /w/o{n}/dest"],
            vec![poke.clone(), poke],
        ),
        d.plain(
            vec![format!("COPY a/deep /w/o{n}/dest/"), format!("COPY b/x /w/o{n}/dest/more/x")],
            vec![Poke::Member("a/deep".into()), Poke::Mode("b/x".into())],
        ),
        d.run(lines!["find /w/o{n} | sort"], vec![]),
    ]
}

fn copy_link(d: &mut Draw<'_>) -> Vec<Step> {
    let (x, n) = (d.file(), d.id());
    let (knob, poke) = d.knob(&["700", "755"]);
    vec![
        d.run(lines!["mkdir -m $(cat {knob}) /w/l{n}; echo x >/w/l{n}/old"], vec![poke]),
        d.plain(
            vec![format!("COPY --link {x} /w/l{n}/"), format!("COPY --link a/l0 b/x /w/l{n}/new/")],
            vec![Poke::Content(x), Poke::Target("a/l0".into()), Poke::Member("b/x".into())],
        ),
        d.run(lines!["ls -R /w/l{n}; stat -c %a /w/l{n}"], vec![]),
    ]
}

fn copy_exclude(d: &mut Draw<'_>) -> Vec<Step> {
    let n = d.id();
    vec![d.plain(
        vec![
            format!("COPY --exclude=**/*1.txt a /w/e{n}/"),
            format!("COPY --parents b/./x/h*.txt b/x/extra1* data/sub /w/f{n}/"),
        ],
        vec![
            Poke::Content("a/deep/g1.txt".into()),
            Poke::Content("a/f2.txt".into()),
            Poke::Exist("b/x/extra1.txt".into()),
        ],
    )]
}

fn copy_inline(d: &mut Draw<'_>) -> Vec<Step> {
    let n = d.id();
    vec![d.plain(
        vec![format!("ENV INLINE{n}=value0"), format!("COPY <<one <<'two' /w/i{n}/\n$INLINE{n}\none\n$INLINE{n}\ntwo")],
        vec![],
    )]
}

fn add_archive(d: &mut Draw<'_>) -> Vec<Step> {
    let n = d.id();
    vec![
        d.plain(
            vec![format!("ADD data/pack.tar /w/a{n}/"), format!("ADD --chown=3:4 data/v0.dat /w/a{n}/")],
            vec![Poke::Content("data/pack.tar".into())],
        ),
        d.run(lines!["cd /w/a{n} && find . -type f | sort | xargs cat"], vec![]),
    ]
}

fn workdir(d: &mut Draw<'_>) -> Vec<Step> {
    let n = d.id();
    let (knob, poke) = d.knob(&["y", "n"]);
    let id = d.id();
    let run = d.instruction("", id, lines!["pwd; echo x >new; ls"]);
    vec![
        d.run(lines!["if grep -q y {knob}; then mkdir -p -m 711 /w/wd{n}/in; fi"], vec![poke]),
        d.plain(vec![format!("WORKDIR /w/wd{n}"), "WORKDIR in".into(), run, "WORKDIR /".into()], vec![]),
    ]
}

/// Over a link that an earlier step made.
fn workdir_through(d: &mut Draw<'_>) -> Vec<Step> {
    let n = d.id();
    let (knob, poke) = d.knob(&["one", "two"]);
    let id = d.id();
    let run = d.instruction("", id, lines!["pwd; echo x >new"]);
    vec![
        d.run(lines!["mkdir -p /w/y{n}/one /w/y{n}/two; ln -s $(cat {knob}) /w/y{n}/to"], vec![poke.clone(), poke]),
        d.plain(vec![format!("WORKDIR /w/y{n}/to/sub"), run, "WORKDIR /".into()], vec![]),
    ]
}

fn bind(d: &mut Draw<'_>) -> Vec<Step> {
    let (dir, x) = (d.dir(), d.file());
    vec![
        d.run_with(
            &format!("--mount=type=bind,source={dir},target=/mnt/d "),
            lines!["ls /mnt/d", "cat /mnt/d/extra0.txt || echo default", "echo no >/mnt/d/x || echo read only"],
            vec![Poke::Member(dir.clone()), Poke::Exist(format!("{dir}/extra0.txt"))],
        ),
        d.run_with(
            "--mount=type=bind,target=/mnt/all ",
            lines!["cat /mnt/all/{x}", "[ -e /mnt/all/{dir}/extra1.txt ] && echo there", "readlink /mnt/all/a/l0"],
            vec![Poke::Content(x), Poke::Exist(format!("{dir}/extra1.txt")), Poke::Target("a/l0".into())],
        ),
    ]
}

fn bind_stage(d: &mut Draw<'_>) -> Vec<Step> {
    let Some(stage) = stage(d) else { return bind(d) };
    vec![d.run_with(
        &format!("--mount=type=bind,from={stage},source=/,target=/mnt/stage "),
        lines![
            "cat /mnt/stage/out/s* | wc -l",
            "cat /mnt/stage/etc/passwd",
            "ls /mnt/stage/w",
            "cat /mnt/stage/usr/share/b/conf1"
        ],
        vec![Poke::Base],
    )]
}

/// What is written to it is gone afterwards.
fn bind_writable(d: &mut Draw<'_>) -> Vec<Step> {
    let (dir, n) = (d.dir(), d.id());
    vec![d.run_with(
        &format!("--mount=type=bind,source={dir},target=/mnt/rw,rw "),
        lines!["echo more >/mnt/rw/new; ls /mnt/rw; cp -r /mnt/rw /w/rw{n}"],
        vec![Poke::Member(dir)],
    )]
}

/// What is in it makes a step faster and nothing else.
fn cache(d: &mut Draw<'_>) -> Vec<Step> {
    let (x, n) = (d.file(), d.id());
    vec![d.run_with(
        &format!("--mount=type=cache,target=/cache,id=c{n} "),
        lines!["s=$(md5sum </src/{x} | cut -c1-8)", "[ -f /cache/$s ] || cp /src/{x} /cache/$s", "cat /cache/$s"],
        vec![Poke::Content(x)],
    )]
}

fn tmpfs(d: &mut Draw<'_>) -> Vec<Step> {
    let x = d.file();
    vec![d.run_with(
        "--mount=type=tmpfs,target=/mnt/tmp ",
        lines!["cp /src/{x} /mnt/tmp/; ls /mnt/tmp; cat /mnt/tmp/*"],
        vec![Poke::Content(x)],
    )]
}
