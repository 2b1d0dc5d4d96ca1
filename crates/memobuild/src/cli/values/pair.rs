//! `KEY=VALUE` in its three uses.

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

/// `--annotation`: `[manifest:]KEY=VALUE`.
pub(crate) fn annotation(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("{text:?}: expected KEY=VALUE"))?;
    let key = match key.split_once(':') {
        Some(("manifest", key)) => key,
        Some((kind, _))
            if kind.split(['[', ',']).next().is_some_and(|k| k.starts_with("index") || k.starts_with("manifest")) =>
        {
            return Err(format!("annotations of {kind} are not supported: expected KEY=VALUE or manifest:KEY=VALUE"));
        }
        _ => key,
    };
    if key.is_empty() {
        return Err(format!("{text:?} names no annotation: expected KEY=VALUE"));
    }
    Ok((key.to_owned(), value.to_owned()))
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
        assert_eq!(annotation("manifest:a.b=c"), Ok(("a.b".into(), "c".into())));
        assert_eq!(annotation("a.b=c"), Ok(("a.b".into(), "c".into())));
        for bad in ["a", "=x", "index:a=b", "index-descriptor:a=b", "manifest[linux/amd64]:a=b"] {
            assert!(annotation(bad).is_err(), "{bad}");
        }
    }
}
