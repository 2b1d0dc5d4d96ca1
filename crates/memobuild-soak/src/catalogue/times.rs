//! Times that were set on purpose, and the order of files that steps wrote.
//!
//! Files whose times are compared are written by steps of their own, each of which first waits longer than the clock of
//! files ticks; and the comparing step runs in the same stage.

use super::{Draw, Need, Way, entry, lines};
use crate::project::{Poke, Step};

pub(super) const ENTRIES: &[Way] = &[
    entry("touch", Need::Nothing, touch),
    entry("touch-dir", Need::Nothing, touch_dir),
    entry("keep-time", Need::Nothing, keep_time),
    entry("unpack", Need::Nothing, unpack),
    entry("newer", Need::Probe, newer),
    entry("newer-rebuilt", Need::Probe, newer_rebuilt),
    entry("newer-set", Need::Nothing, newer_set),
    entry("find-newer", Need::Full, find_newer),
    entry("make", Need::Full, make),
    entry("prebuilt", Need::Full, prebuilt),
];

const WAIT: &str = "sleep 0.02";
// `|| touch -d @1`: an edit can make a knob something that is no time, and the time of writing is no function of files.

fn touch(d: &mut Draw<'_>) -> Vec<Step> {
    let n = d.id();
    let (knob, poke) = d.knob(&["1", "2", "3"]);
    vec![
        d.run(
            lines!["echo x >/w/t{n}; touch -d @100000000$(cat {knob}) /w/t{n} || touch -d @1 /w/t{n}"],
            vec![poke.clone(), poke],
        ),
        d.run(lines!["stat -c %Y /w/t{n}"], vec![]),
    ]
}

fn touch_dir(d: &mut Draw<'_>) -> Vec<Step> {
    let n = d.id();
    let (knob, poke) = d.knob(&["1", "2"]);
    vec![
        d.run(
            lines!["mkdir /w/t{n}; echo x >/w/t{n}/f; touch -d @100000000$(cat {knob}) /w/t{n} || touch -d @1 /w/t{n}"],
            vec![poke],
        ),
        d.run(lines!["cat /w/t{n}/f"], vec![]),
    ]
}

/// `cp -p`, `cp -a` and `mv` take a time along.
fn keep_time(d: &mut Draw<'_>) -> Vec<Step> {
    let n = d.id();
    let (knob, poke) = d.knob(&["1", "2"]);
    vec![
        d.run(
            lines![
                "mkdir /w/k{n}; echo x >/w/k{n}/f; touch -d @10000000$(cat {knob})0 /w/k{n}/f || touch -d @1 /w/k{n}/f"
            ],
            vec![poke.clone(), poke],
        ),
        d.run(lines!["cp -p /w/k{n}/f /w/k{n}/g", "cp -a /w/k{n} /w/l{n}", "mv /w/l{n}/f /w/l{n}/h"], vec![]),
    ]
}

fn unpack(d: &mut Draw<'_>) -> Vec<Step> {
    let n = d.id();
    vec![
        d.run(
            lines!["mkdir /w/p{n}; tar -C /w/p{n} -xpf /src/data/pack.tar; ls /w/p{n}"],
            vec![Poke::Content("data/pack.tar".into()), Poke::Content("data/pack.tar".into())],
        ),
        d.run(lines!["find /w/p{n} -type f | sort | xargs stat -c '%n %a %s %Y'"], vec![]),
    ]
}

/// Two files that two steps write, and a third that compares.
fn newer(d: &mut Draw<'_>) -> Vec<Step> {
    let (x, y, n) = (d.file(), d.file(), d.id());
    vec![
        d.run(lines!["{WAIT}; cat /src/{x} >/w/x{n}"], vec![Poke::Content(x)]),
        d.run(lines!["{WAIT}; cat /src/{y} >/w/y{n}"], vec![Poke::Content(y.clone())]),
        d.run(
            lines!["cat /src/{y} | wc -l", "probe newer /w/x{n} /w/y{n}", "probe newer /w/y{n} /w/x{n}"],
            vec![Poke::Content(y)],
        ),
    ]
}

/// As make does it: what is older than its source is made again.
fn newer_rebuilt(d: &mut Draw<'_>) -> Vec<Step> {
    let (x, y, n) = (d.file(), d.file(), d.id());
    let (knob, poke) = d.knob(&["no", "yes"]);
    vec![
        d.run(lines!["{WAIT}; cat /src/{x} >/w/x{n}; cat /src/{y} >/w/z{n}"], vec![Poke::Content(x)]),
        d.run(lines!["{WAIT}; wc -c </w/x{n} >/w/y{n}"], vec![]),
        d.run(lines!["{WAIT}; if grep -q yes {knob}; then echo more >>/w/x{n}; fi"], vec![poke]),
        d.run(
            lines![
                "if probe newer /w/x{n} /w/y{n} | grep -q 'is newer'; then \
                 echo made again; wc -c </w/x{n} >/w/y{n}; fi",
                "cat /w/y{n} /w/z{n}"
            ],
            vec![Poke::Content(y)],
        ),
    ]
}

/// By the shell's own test, which may count whole seconds: these are far apart.
fn newer_set(d: &mut Draw<'_>) -> Vec<Step> {
    let n = d.id();
    let (knob, poke) = d.knob(&["1", "5"]);
    vec![
        d.run(lines!["echo a >/w/a{n}; touch -d @1000000003 /w/a{n}"], vec![]),
        d.run(
            lines!["echo b >/w/b{n}; touch -d @100000000$(cat {knob}) /w/b{n} || touch -d @1 /w/b{n}"],
            vec![poke.clone(), poke],
        ),
        d.run(
            lines!["[ /w/a{n} -nt /w/b{n} ] && echo a is newer || echo b is newer", "find /w/a{n} -newer /w/b{n}"],
            vec![],
        ),
    ]
}

fn find_newer(d: &mut Draw<'_>) -> Vec<Step> {
    let (x, n) = (d.file(), d.id());
    vec![
        d.run(lines!["{WAIT}; cat /src/{x} >/w/x{n}"], vec![Poke::Content(x)]),
        d.run(lines!["{WAIT}; mkdir /w/y{n}; echo y >/w/y{n}/y"], vec![]),
        d.run(
            lines![
                "find /w/x{n} /w/y{n} -type f -newer /w/x{n} | sort",
                "[ /w/x{n} -nt /w/y{n}/y ] && echo x || echo y"
            ],
            vec![],
        ),
    ]
}

const MAKEFILE: &str = r"prog: main.o util.o\n\tgcc -o prog main.o util.o\n%%.o: %%.c util.h\n\tgcc -c -o $@ $<\n";

/// A program is built, its sources change or not, and it is built again.
fn make(d: &mut Draw<'_>) -> Vec<Step> {
    let n = d.id();
    let (knob, poke) = d.knob(&["main.c", "util.c", "util.h", "notes"]);
    vec![
        d.run(
            lines!["mkdir /w/k{n}; cp /src/c/*.[ch] /w/k{n}/; printf '{MAKEFILE}' >/w/k{n}/Makefile"],
            vec![Poke::Content("c/main.c".into()), Poke::Content("c/util.c".into())],
        ),
        d.run(lines!["{WAIT}; make -C /w/k{n}; /w/k{n}/prog"], vec![]),
        d.run(lines!["{WAIT}; echo >>/w/k{n}/$(cat {knob})"], vec![poke]),
        d.run(lines!["{WAIT}; make -C /w/k{n}; /w/k{n}/prog"], vec![]),
    ]
}

/// An object that came with the sources, newer by a time that was set; and bytecode that names a time.
fn prebuilt(d: &mut Draw<'_>) -> Vec<Step> {
    let n = d.id();
    let (knob, poke) = d.knob(&["1", "8"]);
    vec![
        d.run(
            lines![
                "mkdir /w/k{n}; cp /src/py/*.py /w/k{n}/; cd /w/k{n}; touch -d @1000000005 *.py; \
                 printf 'out: mod0.py\\n\\tcp mod0.py out\\n' >Makefile; echo prebuilt >out; \
                 touch -d @100000000$(cat {knob}) out || touch -d @1 out"
            ],
            vec![poke.clone(), poke, Poke::Content("py/mod0.py".into())],
        ),
        d.run(lines!["cd /w/k{n}; make; cat out; python3 -m compileall -q ."], vec![]),
        d.run(lines!["cd /w/k{n}; python3 -c 'import mod0; print(mod0.value())'"], vec![]),
    ]
}
