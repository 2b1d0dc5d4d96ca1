//! Git references as `ADD` and contexts take them: `git@host:repo.git#ref:dir`, `https://host/repo.git?tag=v1`.
//!
//! Source: BuildKit's documentation of `ADD` from git and of build contexts.

use memobuild_dockerfile::diagnostic::nearest;
use memobuild_dockerfile::values::parse_bool;

use crate::model::Git;

/// A git reference, taken apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GitRef {
    /// Where from, without query and fragment.
    pub remote: String,
    /// Branch, tag or commit.
    pub reference: Option<String>,
    /// Directory within, without a slash in front.
    pub subdir: Option<String>,
    /// The commit that must be found.
    pub checksum: Option<String>,
    /// `?keep-git-dir`.
    pub keep_git_dir: Option<bool>,
    /// `?submodules`.
    pub submodules: Option<bool>,
    /// `?mtime=commit`.
    pub commit_mtime: bool,
    /// `?fetch-by-commit`.
    pub fetch_by_commit: bool,
    /// `github.com/...` without a scheme: a repository as a context, a path in `COPY` and `ADD`.
    pub like_a_path: bool,
}

impl GitRef {
    /// Reads a reference; none: the text is something else.
    ///
    /// # Errors
    /// It names a repository, but its query makes no sense.
    pub fn parse(text: &str) -> Option<Result<Self, String>> {
        if text.starts_with("./") || text.starts_with("../") {
            return None;
        }
        let (rest, fragment) = match text.split_once('#') {
            Some((rest, fragment)) => (rest, Some(fragment)),
            None => (text, None),
        };
        let (remote, query) = match rest.split_once('?') {
            Some((remote, query)) => (remote, Some(query)),
            None => (rest, None),
        };
        let mut out = Self { remote: remote.to_owned(), ..Self::default() };
        if text.starts_with("github.com/") {
            out.like_a_path = true;
        } else if let Some((scheme, host_and_path)) = split_scheme(remote) {
            match scheme.to_ascii_lowercase().as_str() {
                "git" | "ssh" => {}
                // A web address is a repository only if it says so.
                "http" | "https" if host_and_path.ends_with(".git") && host_and_path.contains('/') => {}
                _ => return None,
            }
        } else if !is_scp(remote) {
            return None;
        }
        if let Some(fragment) = fragment.filter(|fragment| !fragment.is_empty()) {
            let fragment = percent_decode(fragment)?;
            let (reference, subdir) = fragment.split_once(':').unwrap_or((&fragment, ""));
            out.reference = non_empty(reference);
            out.subdir = non_empty(crate::path::absolute(subdir).trim_start_matches('/'));
        }
        Some(match query {
            Some(query) => out.read_query(query).map(|()| out),
            None => Ok(out),
        })
    }

    fn read_query(&mut self, query: &str) -> Result<(), String> {
        let (mut tag, mut branch) = (None, None);
        let mut seen: Vec<String> = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let read = |part: &str| {
                percent_decode(&part.replace('+', " ")).ok_or_else(|| format!("invalid URL escape in query {part:?}"))
            };
            let (key, value) = (read(key)?, read(value)?);
            if seen.contains(&key) {
                return Err(format!("query {key:?} has multiple values"));
            }
            let switch = matches!(key.as_str(), "submodules" | "keep-git-dir" | "fetch-by-commit");
            if value.is_empty() && !switch {
                return Err(format!("query {key:?} has no value"));
            }
            let truth = || switch_value(&value).ok_or_else(|| format!("invalid {key} value: {value:?}"));
            match key.as_str() {
                "ref" => set(&mut self.reference, "ref", value)?,
                "subdir" => set(&mut self.subdir, "subdir", value)?,
                "tag" => tag = Some(value),
                "branch" => branch = Some(value),
                "checksum" | "commit" => self.checksum = Some(value),
                "keep-git-dir" => self.keep_git_dir = Some(truth()?),
                "submodules" => self.submodules = Some(truth()?),
                "fetch-by-commit" => self.fetch_by_commit = truth()?,
                "mtime" => match value.as_str() {
                    "commit" => self.commit_mtime = true,
                    "checkout" => self.commit_mtime = false,
                    _ => {
                        return Err(format!("invalid mtime value: {value:?} (must be \"checkout\" or \"commit\")"));
                    }
                },
                _ => {
                    let known = ["ref", "tag", "branch", "subdir", "checksum", "commit", "keep-git-dir", "submodules"];
                    let hint = nearest(&key, known, false).map(|n| format!(" (did you mean {n}?)")).unwrap_or_default();
                    return Err(format!("unexpected query {key:?}{hint}"));
                }
            }
            seen.push(key);
        }
        if tag.is_some() && branch.is_some() {
            return Err("branch conflicts with tag".to_owned());
        }
        for (name, prefix) in [(tag, "refs/tags/"), (branch, "refs/heads/")] {
            if let Some(name) = name {
                let full = if name.starts_with(prefix) { name } else { format!("{prefix}{name}") };
                set(&mut self.reference, "ref", full)?;
            }
        }
        Ok(())
    }
}

impl From<GitRef> for Git {
    fn from(from: GitRef) -> Self {
        let remote = if from.like_a_path { format!("https://{}", from.remote) } else { from.remote };
        Self {
            remote,
            reference: from.reference,
            subdir: from.subdir,
            keep_git_dir: from.keep_git_dir.unwrap_or(false),
            checksum: from.checksum,
            skip_submodules: from.submodules == Some(false),
            fetch_by_commit: from.fetch_by_commit,
            commit_mtime: from.commit_mtime,
        }
    }
}

fn non_empty(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn set(slot: &mut Option<String>, name: &str, value: String) -> Result<(), String> {
    match slot {
        Some(old) if *old != value => Err(format!("{name} conflicts: {old:?} vs {value:?}")),
        _ => {
            *slot = Some(value);
            Ok(())
        }
    }
}

/// A switch of a query: no value is true.
fn switch_value(value: &str) -> Option<bool> {
    if value.is_empty() { Some(true) } else { parse_bool(value) }
}

fn split_scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once("://")?;
    (!scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric())).then_some((scheme, rest))
}

/// `user@host:path`
fn is_scp(text: &str) -> bool {
    let Some((user, rest)) = text.split_once('@') else {
        return false;
    };
    let Some((host, _)) = rest.split_once(':') else {
        return false;
    };
    let word = |extra: &'static [u8]| move |b: u8| b.is_ascii_alphanumeric() || extra.contains(&b);
    !user.is_empty() && user.bytes().all(word(b"-_")) && !host.is_empty() && host.bytes().all(word(b"-."))
}

/// A URL part with its `%xx` replaced; none: an escape is not one, or the result is no text.
pub(crate) fn percent_decode(text: &str) -> Option<String> {
    if !text.contains('%') {
        return Some(text.to_owned());
    }
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(b) = bytes.next() {
        if b == b'%' {
            let mut digit = || bytes.next().and_then(|b| char::from(b).to_digit(16));
            let (high, low) = (digit()?, digit()?);
            out.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            out.push(b);
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn git(text: &str) -> Git {
        GitRef::parse(text).unwrap().unwrap().into()
    }

    #[test]
    fn what_is_a_repository() {
        for yes in [
            "git@github.com:a/b",
            "git://h/r",
            "ssh://u@h:22/r",
            "https://h/r.git",
            "HTTP://h/r.git#x",
            "github.com/a/b",
        ] {
            assert!(GitRef::parse(yes).is_some(), "{yes}");
        }
        for no in ["./git@h:x", "https://h/r", "https://h/r.git/x", "ftp://h/r.git", "a/b", "r.git", "@h:x", "u@h"] {
            assert!(GitRef::parse(no).is_none(), "{no}");
        }
    }

    #[test]
    fn fragments_and_queries() {
        let got = git("https://h/r.git#v1:/a/../b/");
        assert_eq!(
            (got.remote.as_str(), got.reference.as_deref(), got.subdir.as_deref()),
            ("https://h/r.git", Some("v1"), Some("b"))
        );
        assert_eq!(git("git@h:r#:d").subdir.as_deref(), Some("d"));
        assert_eq!(git("git@h:r#").reference, None);
        let got = git("https://h/r.git?tag=v1&subdir=d&keep-git-dir=true&submodules=false&commit=abc");
        assert_eq!(got.reference.as_deref(), Some("refs/tags/v1"));
        assert!(got.keep_git_dir && got.skip_submodules);
        assert_eq!((got.checksum.as_deref(), got.subdir.as_deref()), (Some("abc"), Some("d")));
        assert_eq!(git("github.com/a/b").remote, "https://github.com/a/b");
    }

    #[test]
    fn queries_that_make_no_sense() {
        let bad = |q: &str| GitRef::parse(&format!("https://h/r.git?{q}")).unwrap().unwrap_err();
        assert_eq!(bad("ref="), "query \"ref\" has no value");
        assert_eq!(bad("tag=a&branch=b"), "branch conflicts with tag");
        assert_eq!(bad("brnch=b"), "unexpected query \"brnch\" (did you mean branch?)");
        assert_eq!(bad("ref=a&ref=b"), "query \"ref\" has multiple values");
        assert!(bad("mtime=x").contains("mtime") && bad("submodules=maybe").contains("submodules"));
        assert!(GitRef::parse("https://h/r.git?ref=a#b").unwrap().unwrap_err().starts_with("ref conflicts"));
    }

    #[test]
    fn escapes() {
        assert_eq!(percent_decode("a%20b").as_deref(), Some("a b"));
        assert_eq!((percent_decode("a%2"), percent_decode("%zz"), percent_decode("%ff")), (None, None, None));
    }
}
