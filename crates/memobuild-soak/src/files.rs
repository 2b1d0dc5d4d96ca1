//! What files of a random project hold.

use crate::rng::Rng;

const WORDS: [&str; 12] =
    ["red", "green", "blue", "apple", "pear", "one", "two", "three", "north", "east", "memo", "tree"];

/// New content for a file of that name.
pub fn content(rng: &mut Rng, path: &str) -> Vec<u8> {
    let n = rng.below(90) + 10;
    let name = path.rsplit('/').next().unwrap_or(path);
    match name {
        "main.c" => format!(
            "#include <stdio.h>\n#include \"util.h\"\n\
             int main(void)\n{{\n    printf(\"%d %s {n}\\n\", util({n}), NAME);\n    return 0;\n}}\n"
        )
        .into_bytes(),
        "util.c" => format!("#include \"util.h\"\nint util(int x)\n{{\n    return x + {n};\n}}\n").into_bytes(),
        "util.h" => format!("int util(int x);\n#define NAME \"name{n}\"\n").into_bytes(),
        "conf.h" => format!("#define CONF conf{n}\n").into_bytes(),
        _ if name.ends_with(".py") => format!("def value():\n    return {n}\n").into_bytes(),
        _ if name.ends_with(".sh") => {
            format!("#!/bin/sh\necho script {n} $1\ncat /src/a/f{}.txt || echo none\n", n % 12).into_bytes()
        }
        _ if name.ends_with(".tar") => archive(rng),
        _ => text(rng),
    }
}

fn text(rng: &mut Rng) -> Vec<u8> {
    // Now and then empty, or longer than what is packed with others.
    let lines = match rng.below(20) {
        0 => 0,
        1 => 6000,
        _ => 1 + rng.below(6),
    };
    let mut out = String::new();
    for _ in 0..lines {
        out.push_str(&rng.word(&WORDS));
        out.push(' ');
        out.push_str(&rng.word(&WORDS));
        out.push('\n');
    }
    out.into_bytes()
}

/// The same content with one letter changed: size and all else stay.
pub fn one_letter(rng: &mut Rng, content: &[u8]) -> Vec<u8> {
    let mut out = content.to_vec();
    let letters: Vec<usize> = (0..out.len()).filter(|i| out.get(*i).is_some_and(u8::is_ascii_lowercase)).collect();
    if let Some(letter) = rng.pick(&letters).and_then(|i| out.get_mut(*i)) {
        *letter = if *letter == b'z' { b'y' } else { *letter + 1 };
    }
    out
}

/// A tar with times long ago, a link and a hard link.
fn archive(rng: &mut Rng) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut written = Ok(());
    for i in 0..3 + rng.below(2) {
        let data = text(rng);
        let mut header = tar::Header::new_ustar();
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(data.len() as u64);
        header.set_mode(if rng.percent(30) { 0o755 } else { 0o644 });
        header.set_mtime(1_000_000_000 + 1000 * rng.below(4) as u64);
        written = written.and(tar.append_data(&mut header, format!("in/p{i}"), data.as_slice()));
    }
    for (kind, name, target) in [
        (tar::EntryType::Symlink, "in/link", rng.word(&["p0", "p1", "nowhere"])),
        (tar::EntryType::Link, "in/same", rng.word(&["in/p0", "in/p1"])),
    ] {
        let mut header = tar::Header::new_ustar();
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(0);
        header.set_mode(0o777);
        header.set_mtime(1_000_000_000);
        header.set_entry_type(kind);
        written = written.and(tar.append_link(&mut header, name, target));
    }
    // Writing to memory does not fail.
    written.and_then(|()| tar.into_inner()).unwrap_or_default()
}
