//! ADD: as COPY from the context, and besides it fetches files and repositories and unpacks archives.

use memobuild_dockerfile::ast;

use super::Dispatch;
use super::copy::{Flags, Source, inline_text, tree_source};
use crate::error::Failure;
use crate::git::{GitRef, percent_decode};
use crate::model::{CopySource, Git, Http, Op, Unpack};
use crate::path;
use crate::stages::Command;

/// What a source of ADD is.
enum Origin {
    Git(GitRef),
    Http,
    Context,
}

impl<'f> Dispatch<'_, 'f> {
    pub(super) fn add(&mut self, command: &Command<'f>, add: &ast::Add) -> Result<(), Failure> {
        let flags = Flags {
            dest: &add.dest,
            chown: add.chown.as_ref(),
            chmod: add.chmod.as_ref(),
            link: add.link,
            parents: false,
            exclude: &add.exclude,
        };
        let (mut op, mut text) = self.copy_frame(command, "ADD", &flags)?;
        let checksum = self.expand_flag(command, add.checksum.as_ref())?;
        let sources = self.copy_sources(command, &add.sources)?;
        let (dest, dest_text) = self.copy_dest(command, flags.dest)?;
        let inline = self.inline_files(command, &add.inline_files)?;
        let origins = sources.iter().map(origin).collect::<Result<Vec<Origin>, Failure>>()?;
        if checksum.is_some() {
            let span = add.checksum.as_ref().map_or(command.span, |word| command.place(word.span));
            let refuse = |text| Err(Failure::new(span, text));
            match origins.as_slice() {
                [Origin::Context] => return refuse("checksum requires HTTP(S) or Git sources"),
                [_] => {}
                _ => return refuse("checksum can't be specified for multiple sources"),
            }
        }
        let label = self.copy_label(command);
        for (source, origin) in sources.iter().zip(origins) {
            text.push_str(&format!(" {}", source.text));
            let from = match origin {
                Origin::Git(git) => {
                    let git = git_source(git, add.keep_git_dir, checksum.as_deref(), source)?;
                    let from = self.step(command, Op::Git(git), label.clone());
                    let pattern = "/".to_owned();
                    CopySource::Path { from, pattern, pivot: None, may_be_empty: false, unpack: Unpack::Never }
                }
                Origin::Http => {
                    let span = add.checksum.as_ref().map_or(source.span, |word| command.place(word.span));
                    if let Some(error) = checksum.as_deref().and_then(digest_error) {
                        return Err(Failure::new(span, error).expected("sha256: and 64 hexadecimal digits"));
                    }
                    let filename = file_name(&source.text);
                    let pattern = format!("/{}", path::literal(&filename));
                    let http = Http { url: source.text.clone(), filename, checksum: checksum.clone() };
                    let from = self.step(command, Op::Http(http), label.clone());
                    let unpack = if add.unpack == Some(true) { Unpack::Archives } else { Unpack::Never };
                    CopySource::Path { from, pattern, pivot: None, may_be_empty: false, unpack }
                }
                Origin::Context => {
                    self.check_ignored(command, "Add", &source.text);
                    let unpack = if add.unpack == Some(false) { Unpack::Never } else { Unpack::Archives };
                    tree_source(self.context(), &source.text, false, unpack)
                }
            };
            op.sources.push(from);
        }
        text.push_str(&inline_text(&inline));
        op.sources.extend(inline);
        self.finish_copy(command, op, dest, format!("{text} {dest_text}"), label);
        Ok(())
    }
}

fn origin(source: &Source) -> Result<Origin, Failure> {
    match GitRef::parse(&source.text) {
        Some(Err(error)) => Err(Failure::new(source.span, error)),
        Some(Ok(git)) if !git.like_a_path => Ok(Origin::Git(git)),
        _ if source.text.starts_with("http://") || source.text.starts_with("https://") => Ok(Origin::Http),
        _ => Ok(Origin::Context),
    }
}

/// The reference with the flags of the instruction, which must not say otherwise.
fn git_source(mut git: GitRef, keep: Option<bool>, checksum: Option<&str>, source: &Source) -> Result<Git, Failure> {
    if let (Some(flag), Some(query)) = (keep, git.keep_git_dir)
        && flag != query
    {
        return Err(Failure::new(source.span, "inconsistent keep-git-dir configuration"));
    }
    git.keep_git_dir = git.keep_git_dir.or(keep);
    if let (Some(flag), Some(query)) = (checksum, &git.checksum)
        && flag != query
    {
        return Err(Failure::new(source.span, format!("checksum mismatch {flag:?} != {query:?}")));
    }
    if git.checksum.is_none() {
        git.checksum = checksum.map(Into::into);
    }
    Ok(git.into())
}

/// The name that a file from the web gets.
fn file_name(url: &str) -> String {
    let unnamed = || "__unnamed__".to_owned();
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.split(['?', '#']).next().unwrap_or(rest);
    let Some((_, path)) = rest.split_once('/') else {
        return unnamed();
    };
    match percent_decode(path) {
        // What stands behind an escaped slash is a name too; `..` is none.
        Some(path) => match path::base(&path) {
            "." | ".." | "/" => unnamed(),
            name => name.to_owned(),
        },
        None => unnamed(),
    }
}

/// Why a text is no digest; the words are those of the common Go library.
fn digest_error(text: &str) -> Option<&'static str> {
    const FORM: Option<&str> = Some("invalid checksum digest format");
    let Some((algorithm, hex)) = text.split_once(':') else {
        return FORM;
    };
    let length = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ if algorithm.is_empty() || !algorithm.bytes().all(|b| b.is_ascii_alphanumeric()) => return FORM,
        _ => return Some("unsupported digest algorithm"),
    };
    if hex.is_empty() || !hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        return FORM;
    }
    (hex.len() != length).then_some("invalid checksum digest length")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_from_the_web() {
        for (url, name) in [
            ("http://h/a/b.txt?x=/y#z", "b.txt"),
            ("https://h/dir/", "dir"),
            ("http://h/", "__unnamed__"),
            ("http://h", "__unnamed__"),
            ("http://h?x=/y", "__unnamed__"),
            ("http://h/a%20b", "a b"),
            ("http://h/a%2Fb", "b"),
            ("http://h/%zz", "__unnamed__"),
            ("http://h/..", "__unnamed__"),
        ] {
            assert_eq!(file_name(url), name, "{url}");
        }
    }

    #[test]
    fn digests() {
        assert_eq!(digest_error(&format!("sha256:{}", "0".repeat(64))), None);
        assert_eq!(digest_error("sha256:abc"), Some("invalid checksum digest length"));
        assert_eq!(digest_error("md5:abc"), Some("unsupported digest algorithm"));
        assert_eq!(digest_error("abc"), Some("invalid checksum digest format"));
        assert_eq!(digest_error(&format!("sha256:{}", "G".repeat(64))), Some("invalid checksum digest format"));
    }
}
