//! What a person reads of a step: `[build 2/5] RUN make`.

use memobuild_dockerfile::words::{Env, Lexer};
use memobuild_image::Platform;

use crate::args::EnvList;

/// The part in brackets, with a blank behind it. `platform` is given where several platforms are built.
pub(crate) fn prefix(stage: &str, at: usize, total: usize, platform: Option<&Platform>, env: &EnvList) -> String {
    let mut out = "[".to_owned();
    if let Some(platform) = platform {
        out.push_str(&format!("{platform}{} ", cross(platform, env)));
    }
    if !stage.is_empty() {
        out.push_str(stage);
        out.push(' ');
    }
    let width = total.checked_ilog10().unwrap_or(0) as usize + 1;
    format!("{out}{at:width$}/{total}] ")
}

/// `->arm64` where a step for one platform makes something for another, as far as its TARGET variables tell.
fn cross(platform: &Platform, env: &EnvList) -> String {
    let target = match env.value("TARGETPLATFORM").and_then(|text| text.parse::<Platform>().ok()) {
        Some(target) => target,
        None => {
            let value = |name| env.value(name).filter(|value| !value.is_empty());
            if ["TARGETOS", "TARGETARCH", "TARGETVARIANT"].iter().all(|name| env.value(name).is_none()) {
                return String::new();
            }
            Platform::new(
                value("TARGETOS").unwrap_or(&platform.os),
                value("TARGETARCH").unwrap_or(&platform.architecture),
                value("TARGETVARIANT").unwrap_or_default(),
            )
        }
    };
    let target = target.normalised();
    if target.os != platform.os {
        return format!("->{target}");
    }
    if target.architecture == platform.architecture {
        return String::new();
    }
    let variant = if target.variant.is_empty() { String::new() } else { format!("/{}", target.variant) };
    format!("->{}{variant}", target.architecture)
}

/// The instruction's text with variables filled in where that is possible, its name in capitals.
pub(crate) fn text(lexer: Lexer, original: &str, env: &dyn Env) -> String {
    let text = lexer.expand(original, env).map_or_else(|_| original.to_owned(), |expansion| expansion.text);
    match text.split_once(' ') {
        Some((name, rest)) => format!("{} {rest}", name.to_uppercase()),
        None => text.to_uppercase(),
    }
}

/// The first line of a heredoc, for labels.
pub(crate) fn summary(content: &str) -> String {
    let content = content.trim();
    match content.split_once('\n') {
        Some((first, _)) => format!("{}...", first.trim_end_matches('\r')),
        None => content.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes() {
        let env = EnvList::default();
        assert_eq!(prefix("build", 2, 12, None, &env), "[build  2/12] ");
        assert_eq!(prefix("", 1, 9, None, &env), "[1/9] ");
        let arm: Platform = "linux/arm64".parse().unwrap();
        assert_eq!(prefix("s", 1, 1, Some(&arm), &env), "[linux/arm64 s 1/1] ");
        let mut env = EnvList::default();
        env.set("TARGETPLATFORM", "linux/amd64");
        assert_eq!(prefix("s", 1, 1, Some(&arm), &env), "[linux/arm64->amd64 s 1/1] ");
        let mut env = EnvList::default();
        env.set("TARGETOS", "windows");
        assert_eq!(prefix("", 1, 1, Some(&arm), &env), "[linux/arm64->windows/arm64 1/1] ");
    }

    #[test]
    fn summaries() {
        assert_eq!(summary("\n  a b\r\nc\n"), "a b...");
        assert_eq!(summary("a\n"), "a");
    }
}
