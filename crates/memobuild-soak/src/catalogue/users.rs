//! Users and groups that one step makes and the next is run as.

use super::{Draw, Need, Way, entry, lines};
use crate::project::{Poke, Step};

pub(super) const ENTRIES: &[Way] = &[
    entry("user", Need::Users, user),
    entry("user-home", Need::Nothing, user_home),
    entry("user-groups", Need::Users, user_groups),
    entry("user-chown", Need::Users, user_chown),
    entry("user-denied", Need::Users, user_denied),
    entry("user-workdir", Need::Users, user_workdir),
    entry("user-lacking", Need::Nothing, user_lacking),
];

fn as_user(d: &mut Draw<'_>, user: &str, lines: &[String], pokes: Vec<Poke>) -> Step {
    let id = d.id();
    let run = d.instruction("", id, lines);
    d.plain(vec![format!("USER {user}"), run, "USER 0".into()], pokes)
}

fn user(d: &mut Draw<'_>) -> Vec<Step> {
    let n = d.id();
    let (knob, poke) = d.knob(&["1", "2", "3"]);
    vec![
        d.run(
            lines!["v=$(cat {knob}); echo \"app{n}:x:110$v:120$v::/home/app{n}:/bin/sh\" >>/etc/passwd"],
            vec![poke.clone(), poke],
        ),
        as_user(d, &format!("app{n}"), lines!["id -u; id -g; echo x >/w/u{n}; echo $HOME"], vec![]),
    ]
}

fn user_home(d: &mut Draw<'_>) -> Vec<Step> {
    let n = d.id();
    let (knob, poke) = d.knob(&["one", "two"]);
    vec![
        d.run(
            lines!["v=$(cat {knob}); echo \"app{n}:x:0:0::/home/$v:/bin/sh\" >>/etc/passwd"],
            vec![poke.clone(), poke],
        ),
        as_user(d, &format!("app{n}"), lines!["echo $HOME", "echo ~"], vec![]),
    ]
}

fn user_groups(d: &mut Draw<'_>) -> Vec<Step> {
    let n = d.id();
    let (knob, poke) = d.knob(&["3001", "3002"]);
    vec![
        d.run(
            lines![
                "echo \"app{n}:x:1100:1200::/:/bin/sh\" >>/etc/passwd; \
                 echo \"more{n}:x:$(cat {knob}):app{n}\" >>/etc/group"
            ],
            vec![poke.clone(), poke],
        ),
        as_user(d, &format!("app{n}"), lines!["id -G"], vec![]),
        as_user(d, &format!("app{n}:more{n}"), lines!["id -g; echo x >/w/g{n}"], vec![]),
    ]
}

fn user_chown(d: &mut Draw<'_>) -> Vec<Step> {
    let (n, x) = (d.id(), d.file());
    let (knob, poke) = d.knob(&["1", "2"]);
    vec![
        d.run(
            lines![
                "v=$(cat {knob}); echo \"app{n}:x:110$v:120$v::/:/bin/sh\" >>/etc/passwd; \
                 echo \"grp{n}:x:130$v:\" >>/etc/group"
            ],
            vec![poke.clone(), poke],
        ),
        d.plain(
            vec![
                format!("COPY --chown=app{n} {x} /w/c{n}/"),
                format!("COPY --chown=app{n}:grp{n} {x} /w/d{n}"),
                format!("COPY --chown=0:grp{n} --chmod=640 {x} /w/e{n}"),
            ],
            vec![Poke::Content(x)],
        ),
        d.run(lines!["stat -c %u:%g /w/c{n} /w/d{n} /w/e{n}"], vec![]),
    ]
}

/// What another user may read and walk through.
fn user_denied(d: &mut Draw<'_>) -> Vec<Step> {
    let (n, x, dir) = (d.id(), d.file(), d.dir());
    let (knob, poke) = d.knob(&["755", "700"]);
    vec![
        d.run(lines!["mkdir /w/d{n}; echo in >/w/d{n}/f; chmod $(cat {knob}) /w/d{n}"], vec![poke.clone(), poke]),
        as_user(
            d,
            "nobody",
            lines!["cat /w/d{n}/f || echo denied", "cat /src/{x} || echo denied", "ls /src/{dir} || echo denied"],
            vec![Poke::Mode(x), Poke::Mode(dir)],
        ),
    ]
}

fn user_workdir(d: &mut Draw<'_>) -> Vec<Step> {
    let n = d.id();
    let (knob, poke) = d.knob(&["1", "2"]);
    let id = d.id();
    let run = d.instruction("", id, lines!["pwd; echo x >new; stat -c %u:%g . new"]);
    vec![
        d.run(
            lines!["v=$(cat {knob}); echo \"app{n}:x:110$v:120$v::/:/bin/sh\" >>/etc/passwd"],
            vec![poke.clone(), poke],
        ),
        d.plain(
            vec![format!("USER app{n}"), format!("WORKDIR /w/wd{n}/in"), run, "USER 0".into(), "WORKDIR /".into()],
            vec![],
        ),
    ]
}

/// A build that fails as long as the user is not there.
fn user_lacking(d: &mut Draw<'_>) -> Vec<Step> {
    let n = d.id();
    let (knob, poke) = d.knob(&["yes", "yes ", "no"]);
    vec![
        d.run(lines!["grep -q yes {knob} && echo \"app{n}:x:0:0::/:/bin/sh\" >>/etc/passwd"], vec![poke]),
        as_user(d, &format!("app{n}"), lines!["id -u"], vec![]),
    ]
}
