//! The build's context and `--build-context`.

use memobuild_engine::ContextInput;
use memobuild_plan::{GitRef, model::ContextSource};

/// PATH, `-` or URL.
pub(crate) fn context_input(text: &str) -> Result<ContextInput, String> {
    Ok(match text {
        "" => return Err("expected a directory, a URL or -".into()),
        "-" => ContextInput::Stdin,
        url if is_remote(url) => ContextInput::Url(url.to_owned()),
        path => ContextInput::Directory(path.into()),
    })
}

/// `NAME=VALUE`, where the value is a directory, `docker-image://REF`, `oci-layout://PATH[:TAG][@DIGEST]`,
/// `target:STAGE`, a repository or a URL.
pub(crate) fn build_context(text: &str) -> Result<(String, ContextSource), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("{text:?}: expected NAME=VALUE"))?;
    if name.is_empty() || value.is_empty() {
        return Err(format!("{text:?}: expected NAME=VALUE"));
    }
    let source = if let Some(reference) = value.strip_prefix("docker-image://") {
        ContextSource::Image(reference.to_owned())
    } else if let Some(layout) = value.strip_prefix("oci-layout://") {
        ContextSource::OciLayout(layout.to_owned())
    } else if let Some(stage) = value.strip_prefix("target:") {
        ContextSource::Target(stage.to_owned())
    } else if let Some(git) = GitRef::parse(value) {
        ContextSource::Git(git?.into())
    } else if is_remote(value) {
        ContextSource::Http(value.to_owned())
    } else {
        let found = std::fs::metadata(value).map_err(|e| format!("{value}: {e}"))?;
        if !found.is_dir() {
            return Err(format!("{value} is not a directory"));
        }
        ContextSource::Local(value.into())
    };
    Ok((name.to_owned(), source))
}

fn is_remote(text: &str) -> bool {
    ["http://", "https://", "git://", "ssh://"].iter().any(|scheme| text.starts_with(scheme))
        || text.starts_with("git@")
        || text.starts_with("github.com/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_of_each_kind() {
        let source = |v: &str| build_context(&format!("n={v}")).map(|(_, s)| s);
        assert_eq!(source("docker-image://debian:12"), Ok(ContextSource::Image("debian:12".into())));
        assert_eq!(source("oci-layout:///x/y:tag"), Ok(ContextSource::OciLayout("/x/y:tag".into())));
        assert_eq!(source("target:build"), Ok(ContextSource::Target("build".into())));
        assert_eq!(source("https://x/a.tar"), Ok(ContextSource::Http("https://x/a.tar".into())));
        assert_eq!(source("/"), Ok(ContextSource::Local("/".into())));
        for git in ["https://x/a.git", "https://x/a.git#v1:sub", "git@x:a.git#:sub", "github.com/a/b", "ssh://x/a"] {
            assert!(matches!(source(git), Ok(ContextSource::Git(_))), "{git}");
        }
        for bad in ["n", "=x", "n=", "n=/no/such/dir", "n=/dev/null"] {
            assert!(build_context(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_context_is_a_directory_unless_it_says_otherwise() {
        assert_eq!(context_input("-"), Ok(ContextInput::Stdin));
        assert_eq!(context_input("a/b"), Ok(ContextInput::Directory("a/b".into())));
        assert_eq!(context_input("https://x/a.git"), Ok(ContextInput::Url("https://x/a.git".into())));
        assert!(context_input("").is_err());
    }
}
