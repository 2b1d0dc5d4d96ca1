//! What the kernel will find when it starts a step's command, as far as the step's tree tells.

use memobuild_tree::{Node, path};

use crate::{contents::Contents, step::Step};

/// As much of a file as the kernel looks at to tell its format.
const LOOKED_AT: usize = 256;
/// Interpreters of interpreters that the kernel follows.
const MOST_SCRIPTS: u32 = 5;

/// A program in a step's root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Program {
    /// Where it was looked for.
    pub(super) path: Vec<u8>,
    /// How its file begins.
    pub(super) head: Vec<u8>,
}

/// The program of the step's command: that of its first word, or for a script its interpreter. `None` where that can't
/// be told beforehand: it is not there, or in something that is mounted, or not to be read now.
pub(super) fn of(step: &Step, contents: &dyn Contents) -> Option<Program> {
    let mut program = first_word(step).find_map(|at| read(step, contents, &at))?;
    for _ in 0..MOST_SCRIPTS {
        let Some(rest) = program.head.strip_prefix(b"#!") else { return Some(program) };
        let line = rest.split(|b| *b == b'\n').next().unwrap_or_default();
        let interpreter = line.split(|b| matches!(b, b' ' | b'\t')).find(|word| !word.is_empty())?;
        program = read(step, contents, &path::join(&step.cwd, interpreter))?;
    }
    None
}

/// Where the command may lie.
fn first_word(step: &Step) -> impl Iterator<Item = Vec<u8>> {
    let command = step.argv.first().cloned().unwrap_or_default();
    let search = if command.contains(&b'/') {
        vec![Vec::new()]
    } else {
        let path = step.env.iter().find_map(|e| e.strip_prefix(b"PATH="));
        path.unwrap_or(crate::compose::USUAL_PATH).split(|b| *b == b':').map(<[u8]>::to_vec).collect()
    };
    let cwd = step.cwd.clone();
    search.into_iter().map(move |dir| match dir.is_empty() {
        true => path::join(&cwd, &command),
        false => path::join(&cwd, &path::join(&dir, &command)),
    })
}

fn read(step: &Step, contents: &dyn Contents, at: &[u8]) -> Option<Program> {
    let found = step.root.resolve(at, true).ok()?;
    let below = |target: &[u8]| {
        let rest = found.path.strip_prefix(target);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
    };
    if step.mounts.iter().any(|mount| below(&mount.target)) {
        return None;
    }
    let Some(Node::File(file)) = found.node else { return None };
    let reader = contents.open(&file.content).ok()?;
    let mut head = vec![0; LOOKED_AT];
    let mut done = 0;
    while let Some(rest) = head.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match reader.read_at(rest, done as u64).ok()? {
            0 => break,
            n => done += n,
        }
    }
    head.truncate(done);
    Some(Program { path: at.to_vec(), head })
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        path::{Path, PathBuf},
        sync::Arc,
    };

    use memobuild_tree::{ContentDigest, File, Meta, Mtime, Symlink, Tree};

    use super::*;
    use crate::{
        contents::ReadAt,
        step::{Mount, MountKind},
    };

    /// Every file holds the same text, which names it.
    struct Texts(Vec<&'static [u8]>);

    struct Text(&'static [u8]);

    impl ReadAt for Text {
        fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
            let rest = self.0.get(offset as usize..).unwrap_or_default();
            // As short as a reader may be.
            let n = rest.len().min(buffer.len()).min(3);
            buffer[..n].copy_from_slice(&rest[..n]);
            Ok(n)
        }

        fn len(&self) -> u64 {
            self.0.len() as u64
        }
    }

    impl Contents for Texts {
        fn open(&self, digest: &ContentDigest) -> io::Result<Arc<dyn ReadAt>> {
            let found = self.0.iter().find(|text| ContentDigest::of(text) == *digest);
            Ok(Arc::new(Text(found.ok_or(io::ErrorKind::NotFound)?)))
        }

        fn native(&self, _digest: &ContentDigest, _size: u64) -> Option<PathBuf> {
            None
        }

        fn native_above(&self) -> u64 {
            u64::MAX
        }

        fn blobs_dir(&self) -> Option<&Path> {
            None
        }

        fn put_small(&self, _bytes: &[u8]) -> io::Result<ContentDigest> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn put_large(&self, _tmp: &Path, _digest: ContentDigest, _size: u64) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    const SHELL: &[u8] = b"\x7fELF shell";
    const SCRIPT: &[u8] = b"#! /bin/sh -e\necho\n";
    const LOOP: &[u8] = b"#!/usr/bin/loop\n";

    fn step(argv: &[&str]) -> Step {
        let meta = || Meta::new(0o755, Mtime::default());
        let mut tree = Tree::default();
        let file = |text: &[u8]| {
            let content = ContentDigest::of(text);
            Node::File(File { meta: meta(), size: text.len() as u64, content, link: None })
        };
        tree.put(b"/bin/tools", file(SHELL), &meta);
        let link = Symlink { meta: meta(), target: b"tools".as_slice().into() };
        tree.put(b"/bin/sh", Node::Symlink(link), &meta);
        tree.put(b"/usr/bin/script", file(SCRIPT), &meta);
        tree.put(b"/usr/bin/loop", file(LOOP), &meta);
        Step::new(tree, argv.iter().map(|a| a.as_bytes().to_vec()).collect())
    }

    fn found(step: &Step) -> Option<(String, Vec<u8>)> {
        let texts = Texts(vec![SHELL, SCRIPT, LOOP]);
        of(step, &texts).map(|program| (path::display(&program.path), program.head))
    }

    #[test]
    fn links_scripts_and_path_lead_to_the_program() {
        let shell = Some(("/bin/sh".to_owned(), SHELL.to_vec()));
        assert_eq!(found(&step(&["/bin/sh", "-c", "x"])), shell);
        assert_eq!(found(&step(&["sh"])), shell);
        assert_eq!(found(&step(&["script"])), shell);
        assert_eq!(found(&Step { cwd: b"/usr/bin".to_vec(), ..step(&["./script"]) }), shell);
        assert_eq!(found(&step(&["loop"])), None);
        assert_eq!(found(&step(&["nothing"])), None);
        assert_eq!(found(&step(&[])), None);
        assert_eq!(found(&Step { env: vec![b"PATH=/none".to_vec()], ..step(&["sh"]) }), None);
    }

    #[test]
    fn what_lies_in_a_mount_is_not_told() {
        let mut step = step(&["script"]);
        step.mounts = vec![Mount { target: b"/bin".to_vec(), kind: MountKind::Tmpfs { size: None, writable: true } }];
        assert_eq!(found(&step), None);
        step.mounts[0].target = b"/bi".to_vec();
        assert!(found(&step).is_some());
    }
}
