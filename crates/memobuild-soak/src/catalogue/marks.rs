//! Pairs of steps: the first gives a file something that COPY can't bring, as a file of the context says; the second
//! sees only that.

use super::{Draw, Need, Way, entry, lines};
use crate::project::Step;

pub(super) const ENTRIES: &[Way] = &[
    entry("xattr", Need::Probe, xattr),
    entry("link-group", Need::Nothing, link_group),
    entry("link-group-same", Need::Nothing, link_group_same),
    entry("link-group-du", Need::Blocks, link_group_du),
    entry("owner", Need::Users, owner),
    entry("dir-owner", Need::Users, dir_owner),
    entry("mode", Need::Nothing, mode),
    entry("dir-mode", Need::Nothing, dir_mode),
    entry("dir-xattr", Need::Probe, dir_xattr),
    entry("root-mode", Need::Nothing, root_mode),
    entry("link-target", Need::Nothing, link_target),
    entry("link-owner", Need::Users, link_owner),
    entry("pipe", Need::Nothing, pipe),
    entry("pipe-mode", Need::Nothing, pipe_mode),
    entry("absent-after", Need::Nothing, absent_after),
    entry("listing-after", Need::Nothing, listing_after),
    entry("content-after", Need::Nothing, content_after),
    entry("same-size", Need::Nothing, same_size),
];

/// `first` sees the knob's content as `$v`.
fn pair(d: &mut Draw<'_>, values: &[&'static str], first: &[String], second: &[String]) -> Vec<Step> {
    let (knob, poke) = d.knob(values);
    let mut lines = vec![format!("v=$(cat {knob})")];
    lines.extend_from_slice(first);
    vec![d.run(&lines, vec![poke.clone(), poke]), d.run(second, vec![])]
}

fn xattr(d: &mut Draw<'_>) -> Vec<Step> {
    let n = d.id();
    pair(
        d,
        &["one", "two", "three"],
        lines!["echo x >/w/x{n}; probe setxattr /w/x{n} user.mark $v"],
        lines!["probe xattrs /w/x{n}", "cat /w/x{n}"],
    )
}

fn dir_xattr(d: &mut Draw<'_>) -> Vec<Step> {
    let n = d.id();
    pair(
        d,
        &["one", "two"],
        lines!["mkdir /w/x{n}; probe setxattr /w/x{n} user.mark $v; echo in >/w/x{n}/in"],
        lines!["probe xattrs /w/x{n}", "cat /w/x{n}/in", "echo new >/w/x{n}/new"],
    )
}

fn link_group(d: &mut Draw<'_>) -> Vec<Step> {
    let n = d.id();
    pair(
        d,
        &["ln", "cp"],
        lines!["echo x >/w/g{n}; $v /w/g{n} /w/h{n}"],
        lines!["stat -c %h /w/g{n}", "[ /w/g{n} -ef /w/h{n} ] && echo one file || echo two files"],
    )
}

/// Sees which are the same, and copies them.
fn link_group_same(d: &mut Draw<'_>) -> Vec<Step> {
    let n = d.id();
    pair(
        d,
        &["ln", "cp"],
        lines!["mkdir /w/g{n}; cd /w/g{n}; echo x >a; $v a b; ln b c"],
        lines!["mkdir /w/t{n}; tar -C /w/g{n} -cf - a b c | tar -C /w/t{n} -xf -", "cat /w/t{n}/b"],
    )
}

fn link_group_du(d: &mut Draw<'_>) -> Vec<Step> {
    let n = d.id();
    pair(d, &["ln", "cp"], lines!["seq 3000 >/w/g{n}; $v /w/g{n} /w/h{n}"], lines!["du -kc /w/g{n} /w/h{n}"])
}

fn owner(d: &mut Draw<'_>) -> Vec<Step> {
    let n = d.id();
    pair(
        d,
        &["7", "8", "0"],
        lines!["echo x >/w/o{n}; chown $v:$v /w/o{n}"],
        lines!["stat -c %u:%g /w/o{n}", "cp -a /w/o{n} /w/p{n}"],
    )
}

fn dir_owner(d: &mut Draw<'_>) -> Vec<Step> {
    let n = d.id();
    pair(
        d,
        &["7", "8"],
        lines!["mkdir /w/o{n}; chown $v:$v /w/o{n}"],
        lines!["stat -c %u:%g /w/o{n}", "echo x >/w/o{n}/new"],
    )
}

fn mode(d: &mut Draw<'_>) -> Vec<Step> {
    let n = d.id();
    pair(
        d,
        &["644", "755", "600", "4755"],
        lines!["echo 'echo ran' >/w/m{n}; chmod $v /w/m{n}"],
        lines!["/w/m{n} || echo can not", "cat /w/m{n}", "stat -c %a /w/m{n}"],
    )
}

/// The mode is seen by the step, and comes with what is made in the directory.
fn dir_mode(d: &mut Draw<'_>) -> Vec<Step> {
    let n = d.id();
    pair(
        d,
        &["755", "700", "2755"],
        lines!["mkdir -p /w/d{n}/in; chmod $v /w/d{n}"],
        lines!["echo new >/w/d{n}/new", "stat -c %a /w/d{n}"],
    )
}

fn root_mode(d: &mut Draw<'_>) -> Vec<Step> {
    pair(d, &["755", "711"], lines!["chmod $v /"], lines!["stat -c %a /"])
}

fn link_target(d: &mut Draw<'_>) -> Vec<Step> {
    let n = d.id();
    pair(
        d,
        &["one", "two"],
        lines!["mkdir -p /w/l{n}/one /w/l{n}/two; echo 1 >/w/l{n}/one/f; echo 2 >/w/l{n}/two/f", "ln -s $v /w/l{n}/to"],
        lines!["readlink /w/l{n}/to", "cat /w/l{n}/to/f", "echo new >/w/l{n}/to/new"],
    )
}

fn link_owner(d: &mut Draw<'_>) -> Vec<Step> {
    let n = d.id();
    pair(d, &["7", "8"], lines!["ln -s nowhere /w/l{n}; chown -h $v:$v /w/l{n}"], lines!["stat -c '%u:%g %N' /w/l{n}"])
}

fn pipe(d: &mut Draw<'_>) -> Vec<Step> {
    let n = d.id();
    pair(
        d,
        &["mkfifo", "touch", "mkdir", "rm -f"],
        lines!["$v /w/p{n}"],
        lines!["for t in p f d e; do [ -$t /w/p{n} ] && echo $t; done"],
    )
}

fn pipe_mode(d: &mut Draw<'_>) -> Vec<Step> {
    let n = d.id();
    pair(d, &["600", "644"], lines!["mkfifo -m $v /w/p{n}"], lines!["stat -c '%a %F' /w/p{n}"])
}

fn absent_after(d: &mut Draw<'_>) -> Vec<Step> {
    let n = d.id();
    pair(
        d,
        &["n", "y"],
        lines!["mkdir /w/e{n}; [ $v = n ] || echo x >/w/e{n}/f"],
        lines!["[ -e /w/e{n}/f ] && echo there || echo made >/w/e{n}/made"],
    )
}

fn listing_after(d: &mut Draw<'_>) -> Vec<Step> {
    let n = d.id();
    pair(
        d,
        &["one", "two", "three"],
        lines!["mkdir /w/e{n}; : >/w/e{n}/$v"],
        lines!["echo /w/e{n}/*", "rm -rf /w/e{n}; mkdir /w/e{n}; : >/w/e{n}/only"],
    )
}

fn content_after(d: &mut Draw<'_>) -> Vec<Step> {
    let n = d.id();
    pair(
        d,
        &["one", "two", "three"],
        lines!["mkdir /w/c{n}; echo $v >/w/c{n}/f; echo $v | head -c 1 >/w/c{n}/g"],
        lines!["wc -c </w/c{n}/f", "cat /w/c{n}/g", "echo more >>/w/c{n}/f"],
    )
}

/// Only the content changes, neither size nor mode.
fn same_size(d: &mut Draw<'_>) -> Vec<Step> {
    let n = d.id();
    pair(d, &["aaaa", "bbbb"], lines!["printf $v >/w/c{n}"], lines!["cat /w/c{n}", "ln /w/c{n} /w/d{n}"])
}
