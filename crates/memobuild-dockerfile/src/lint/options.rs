//! The `# check=` directive and `--check` options.

use std::collections::BTreeSet;

use super::rules::Rule;
use crate::directives;
use crate::values::parse_bool;

/// Which rules run, and whether findings are errors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckOptions {
    /// `skip=all`
    pub skip_all: bool,
    /// `skip=A,B`
    pub skip: BTreeSet<String>,
    /// `experimental=all`
    pub experimental_all: bool,
    /// `experimental=A,B`
    pub experimental: BTreeSet<String>,
    /// `error=true`: findings fail the build.
    pub error: bool,
}

/// A `# check=` value that can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CheckOptionsError(pub String);

impl CheckOptions {
    /// Reads `skip=A,B;error=true;experimental=C`.
    ///
    /// # Errors
    /// An unknown option or value.
    pub fn parse(text: &str) -> Result<Self, CheckOptionsError> {
        let mut options = Self::default();
        let text = text.trim();
        if text.is_empty() {
            return Ok(options);
        }
        for part in text.splitn(3, ';') {
            let (key, value) =
                part.split_once('=').ok_or_else(|| CheckOptionsError(format!("invalid check option {part:?}")))?;
            let (key, value) = (key.trim(), value.trim());
            let rules = || value.split(',').map(|rule| rule.trim().to_owned()).collect();
            match (key, value) {
                ("skip", "all") => options.skip_all = true,
                ("skip", _) => options.skip = rules(),
                ("experimental", "all") => options.experimental_all = true,
                ("experimental", _) => options.experimental = rules(),
                ("error", _) => {
                    options.error = parse_bool(value)
                        .ok_or_else(|| CheckOptionsError(format!("failed to parse check option {part:?}")))?;
                }
                _ => return Err(CheckOptionsError(format!("invalid check option {key:?}"))),
            }
        }
        Ok(options)
    }

    /// These options and those of `other` together. `error` stays as it is here.
    pub fn merged(&self, other: &Self) -> Self {
        Self {
            skip_all: self.skip_all || other.skip_all,
            skip: self.skip.union(&other.skip).cloned().collect(),
            experimental_all: self.experimental_all || other.experimental_all,
            experimental: self.experimental.union(&other.experimental).cloned().collect(),
            error: self.error,
        }
    }

    /// With the options of a `check=` comment above an instruction, if there is one.
    pub fn with_comments(&self, comments: &[String]) -> Self {
        comments
            .iter()
            .filter_map(|comment| directives::key_value(comment))
            .find(|(key, _)| key.eq_ignore_ascii_case("check"))
            .and_then(|(_, value)| Self::parse(value.split(' ').next()?).ok())
            .map_or_else(|| self.clone(), |options| self.merged(&options))
    }

    /// Whether findings of a rule are reported.
    pub fn allows(&self, rule: Rule) -> bool {
        if rule.experimental() {
            self.experimental_all || self.experimental.contains(rule.name())
        } else {
            !self.skip_all && !self.skip.contains(rule.name())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_options() {
        let options = CheckOptions::parse("skip=StageNameCasing, UndefinedVar;error=true;experimental=all").unwrap();
        assert!(!options.allows(Rule::StageNameCasing));
        assert!(!options.allows(Rule::UndefinedVar));
        assert!(options.allows(Rule::FromAsCasing));
        assert!(options.allows(Rule::InvalidDefinitionDescription));
        assert!(options.error);
        assert!(!CheckOptions::default().allows(Rule::InvalidDefinitionDescription));
        assert!(!CheckOptions::parse("skip=all").unwrap().allows(Rule::UndefinedVar));
        assert_eq!(CheckOptions::parse(" ").unwrap(), CheckOptions::default());
    }

    #[test]
    fn refuses_others() {
        for (text, want) in [
            ("skip", "invalid check option \"skip\""),
            ("foo=1", "invalid check option \"foo\""),
            ("error=maybe", "failed to parse check option \"error=maybe\""),
        ] {
            assert_eq!(CheckOptions::parse(text).unwrap_err().to_string(), want);
        }
    }

    #[test]
    fn comments_add_to_them() {
        let base = CheckOptions::parse("skip=UndefinedVar").unwrap();
        let more = base.with_comments(&["hello".into(), "check=skip=StageNameCasing".into()]);
        assert!(!more.allows(Rule::StageNameCasing) && !more.allows(Rule::UndefinedVar));
        assert_eq!(base.with_comments(&["check=foo=1".into()]), base);
        assert_eq!(base.with_comments(&[]), base);
    }
}
