//! `KEY=VALUE` in its three uses.

use memobuild_engine::{Annotation, Level};
use memobuild_image::Platform;

/// `--build-arg`: `KEY=VALUE`, or `KEY` alone for the value that the environment has, if any.
pub(crate) fn build_arg(text: &str) -> Result<(String, Option<String>), String> {
    let (key, value) = match text.split_once('=') {
        Some((key, value)) => (key, Some(value.to_owned())),
        None => (text, std::env::var(text).ok()),
    };
    if key.is_empty() {
        return Err(format!("{text:?} names no argument: expected NAME=VALUE"));
    }
    Ok((key.to_owned(), value))
}

/// `--label`: `KEY=VALUE`, or `KEY` alone for an empty value.
pub(crate) fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    if key.is_empty() {
        return Err(format!("{text:?} names no label: expected KEY=VALUE"));
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// `--annotation`: `[LEVEL[[PLATFORM]][,LEVEL...]:]KEY=VALUE`; without a level it is the manifest's. The level of an
/// output's `annotation-LEVEL[PLATFORM].KEY=VALUE` is read by the same rules.
pub(crate) fn annotation(text: &str) -> Result<Vec<Annotation>, String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("{text:?}: expected KEY=VALUE"))?;
    // A key may hold colons; levels are known words.
    let (levels, key) = match key.split_once(':') {
        Some((levels, key)) if levels.starts_with("index") || levels.starts_with("manifest") => (levels, key),
        _ => ("manifest", key),
    };
    if key.is_empty() {
        return Err(format!("{text:?} names no annotation: expected KEY=VALUE"));
    }
    let one = |text: &str| {
        let (level, platform) = level(text)?;
        Ok(Annotation { level, platform, key: key.to_owned(), value: value.to_owned() })
    };
    levels.split(',').map(one).collect()
}

/// `manifest`, `manifest[linux/arm64]`, `index`, and the same with `-descriptor`.
pub(super) fn level(text: &str) -> Result<(Level, Option<Platform>), String> {
    let (name, platform) = match text.strip_suffix(']').and_then(|text| text.split_once('[')) {
        Some((name, platform)) => (name, Some(platform.parse().map_err(|e| format!("{platform}: {e}"))?)),
        None => (text, None),
    };
    let level = match name {
        "manifest" => Level::Manifest,
        "manifest-descriptor" => Level::ManifestDescriptor,
        "index" => Level::Index,
        "index-descriptor" => Level::IndexDescriptor,
        _ => {
            let all = "manifest, manifest-descriptor, index or index-descriptor";
            return Err(format!("{name:?} is no place for an annotation: expected {all}"));
        }
    };
    Ok((level, platform))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs() {
        assert_eq!(build_arg("A=b=c"), Ok(("A".into(), Some("b=c".into()))));
        assert_eq!(build_arg("MEMOBUILD_NO_SUCH_VARIABLE"), Ok(("MEMOBUILD_NO_SUCH_VARIABLE".into(), None)));
        assert!(build_arg("=x").is_err());
        assert_eq!(label("a"), Ok(("a".into(), String::new())));
        for bad in ["a", "=x", "index-thing:a=b", "manifest[:a=b", "index:=x"] {
            assert!(annotation(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn annotations_have_a_level() {
        let made = |level, platform: Option<&str>| Annotation {
            level,
            platform: platform.map(|p| p.parse().unwrap()),
            key: "a.b".into(),
            value: "c".into(),
        };
        let plain = vec![made(Level::Manifest, None)];
        assert_eq!((annotation("a.b=c"), annotation("manifest:a.b=c")), (Ok(plain.clone()), Ok(plain)));
        let arm = vec![made(Level::ManifestDescriptor, Some("linux/arm64"))];
        assert_eq!(annotation("manifest-descriptor[linux/arm64]:a.b=c"), Ok(arm));
        let two = vec![made(Level::Index, None), made(Level::IndexDescriptor, None)];
        assert_eq!(annotation("index,index-descriptor:a.b=c"), Ok(two));
        assert_eq!(annotation("x:y=c").unwrap()[0].key, "x:y");
    }
}
