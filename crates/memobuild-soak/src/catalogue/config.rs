//! Instructions that change what later steps are defined by, or only the image's config; and steps that fail.

use super::{Draw, Need, Way, entry, lines};
use crate::project::{Poke, Step};

pub(super) const ENTRIES: &[Way] = &[
    entry("env", Need::Nothing, env),
    entry("arg", Need::Nothing, arg),
    entry("metadata", Need::Nothing, metadata),
    entry("fail", Need::Nothing, fail),
    entry("shell", Need::Nothing, shell),
];

fn env(d: &mut Draw<'_>) -> Vec<Step> {
    let (n, x) = (d.id(), d.file());
    let id = d.id();
    let run = d.instruction("", id, lines!["echo $E{n}", "cat /src/{x}"]);
    vec![
        d.plain(vec![format!("ENV E{n}=value0"), run], vec![Poke::Content(x)]),
        d.plain(vec![format!("ENV F{n}=value0")], vec![]),
    ]
}

fn arg(d: &mut Draw<'_>) -> Vec<Step> {
    let n = d.id();
    let id = d.id();
    let run = d.instruction("", id, lines!["echo $A{n}"]);
    vec![d.plain(vec![format!("ARG A{n}=value0"), run, "ARG COMMON=value0".into()], vec![])]
}

fn metadata(d: &mut Draw<'_>) -> Vec<Step> {
    let n = d.id();
    vec![d.plain(
        vec![format!("LABEL l{n}=value0"), "CMD [\"value0\"]".into(), "EXPOSE 80".into(), "STOPSIGNAL 9".into()],
        vec![],
    )]
}

/// Fails, and later succeeds.
fn fail(d: &mut Draw<'_>) -> Vec<Step> {
    let id = d.id();
    let (knob, poke) = d.knob(&["0", "0 ", "3"]);
    vec![
        d.plain(vec![format!("RUN cat {knob} >/w/f{id}; exit $(cat {knob})")], vec![poke]),
        d.plain(vec![format!("RUN [ ! -e /src/a/extra3.txt ] || exit 4; echo fine >/out/s{id}")], vec![]),
    ]
}

fn shell(d: &mut Draw<'_>) -> Vec<Step> {
    let (id, x) = (d.id(), d.file());
    vec![d.plain(
        vec![
            "SHELL [\"/bin/sh\", \"-e\", \"-c\"]".into(),
            format!("RUN cat /src/{x} >/out/s{id} || true"),
            "SHELL [\"/bin/sh\", \"-c\"]".into(),
            format!("RUN [\"/bin/sh\", \"-c\", \"ls -d /src/a >>/out/s{id}\"]"),
        ],
        vec![Poke::Content(x)],
    )]
}
