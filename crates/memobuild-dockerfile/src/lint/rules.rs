//! The rules: names, descriptions, pages and messages, as BuildKit publishes them.

/// A build check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "each is described by Rule::description")]
pub enum Rule {
    StageNameCasing,
    FromAsCasing,
    NoEmptyContinuation,
    ConsistentInstructionCasing,
    DuplicateStageName,
    ReservedStageName,
    JsonArgsRecommended,
    MaintainerDeprecated,
    UndefinedArgInFrom,
    WorkdirRelativePath,
    UndefinedVar,
    MultipleInstructionsDisallowed,
    LegacyKeyValueFormat,
    InvalidBaseImagePlatform,
    RedundantTargetPlatform,
    SecretsUsedInArgOrEnv,
    InvalidDefaultArgInFrom,
    FromPlatformFlagConstDisallowed,
    CopyIgnoredFile,
    InvalidDefinitionDescription,
    ExposeProtoCasing,
    ExposeInvalidFormat,
}

/// Name, description, last part of the page's address.
type Facts = (&'static str, &'static str, Option<&'static str>);

const PAGES: &str = "https://docs.docker.com/go/dockerfile/rule/";

impl Rule {
    /// All rules.
    pub const ALL: [Rule; 22] = [
        Rule::StageNameCasing,
        Rule::FromAsCasing,
        Rule::NoEmptyContinuation,
        Rule::ConsistentInstructionCasing,
        Rule::DuplicateStageName,
        Rule::ReservedStageName,
        Rule::JsonArgsRecommended,
        Rule::MaintainerDeprecated,
        Rule::UndefinedArgInFrom,
        Rule::WorkdirRelativePath,
        Rule::UndefinedVar,
        Rule::MultipleInstructionsDisallowed,
        Rule::LegacyKeyValueFormat,
        Rule::InvalidBaseImagePlatform,
        Rule::RedundantTargetPlatform,
        Rule::SecretsUsedInArgOrEnv,
        Rule::InvalidDefaultArgInFrom,
        Rule::FromPlatformFlagConstDisallowed,
        Rule::CopyIgnoredFile,
        Rule::InvalidDefinitionDescription,
        Rule::ExposeProtoCasing,
        Rule::ExposeInvalidFormat,
    ];

    fn facts(self) -> Facts {
        match self {
            Rule::StageNameCasing => ("StageNameCasing", "Stage names should be lowercase", Some("stage-name-casing")),
            Rule::FromAsCasing => {
                ("FromAsCasing", "The 'as' keyword should match the case of the 'from' keyword", Some("from-as-casing"))
            }
            Rule::NoEmptyContinuation => (
                "NoEmptyContinuation",
                "Empty continuation lines will become errors in a future release",
                Some("no-empty-continuation"),
            ),
            Rule::ConsistentInstructionCasing => (
                "ConsistentInstructionCasing",
                "All commands within the Dockerfile should use the same casing (either upper or lower)",
                Some("consistent-instruction-casing"),
            ),
            Rule::DuplicateStageName => {
                ("DuplicateStageName", "Stage names should be unique", Some("duplicate-stage-name"))
            }
            Rule::ReservedStageName => {
                ("ReservedStageName", "Reserved words should not be used as stage names", Some("reserved-stage-name"))
            }
            Rule::JsonArgsRecommended => (
                "JSONArgsRecommended",
                "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
                Some("json-args-recommended"),
            ),
            Rule::MaintainerDeprecated => (
                "MaintainerDeprecated",
                "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
                Some("maintainer-deprecated"),
            ),
            Rule::UndefinedArgInFrom => {
                ("UndefinedArgInFrom", "FROM command must use declared ARGs", Some("undefined-arg-in-from"))
            }
            Rule::WorkdirRelativePath => (
                "WorkdirRelativePath",
                "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base image changes",
                Some("workdir-relative-path"),
            ),
            Rule::UndefinedVar => {
                ("UndefinedVar", "Variables should be defined before their use", Some("undefined-var"))
            }
            Rule::MultipleInstructionsDisallowed => (
                "MultipleInstructionsDisallowed",
                "Multiple instructions of the same type should not be used in the same stage",
                Some("multiple-instructions-disallowed"),
            ),
            Rule::LegacyKeyValueFormat => (
                "LegacyKeyValueFormat",
                "Legacy key/value format with whitespace separator should not be used",
                Some("legacy-key-value-format"),
            ),
            Rule::InvalidBaseImagePlatform => {
                ("InvalidBaseImagePlatform", "Base image platform does not match expected target platform", None)
            }
            Rule::RedundantTargetPlatform => (
                "RedundantTargetPlatform",
                "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
                Some("redundant-target-platform"),
            ),
            Rule::SecretsUsedInArgOrEnv => (
                "SecretsUsedInArgOrEnv",
                "Sensitive data should not be used in the ARG or ENV commands",
                Some("secrets-used-in-arg-or-env"),
            ),
            Rule::InvalidDefaultArgInFrom => (
                "InvalidDefaultArgInFrom",
                "Default value for global ARG results in an empty or invalid base image name",
                Some("invalid-default-arg-in-from"),
            ),
            Rule::FromPlatformFlagConstDisallowed => (
                "FromPlatformFlagConstDisallowed",
                "FROM --platform flag should not use a constant value",
                Some("from-platform-flag-const-disallowed"),
            ),
            Rule::CopyIgnoredFile => (
                "CopyIgnoredFile",
                "Attempting to Copy file that is excluded by .dockerignore",
                Some("copy-ignored-file"),
            ),
            Rule::InvalidDefinitionDescription => (
                "InvalidDefinitionDescription",
                "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is not intended to be a description comment, add an empty line or comment between the instruction and the comment.",
                Some("invalid-definition-description"),
            ),
            Rule::ExposeProtoCasing => {
                ("ExposeProtoCasing", "Protocol in EXPOSE instruction should be lowercase", Some("expose-proto-casing"))
            }
            Rule::ExposeInvalidFormat => (
                "ExposeInvalidFormat",
                "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a future release",
                Some("expose-invalid-format"),
            ),
        }
    }

    /// The published name, such as `JSONArgsRecommended`.
    pub fn name(self) -> &'static str {
        self.facts().0
    }

    /// One sentence on what the rule asks for.
    pub fn description(self) -> &'static str {
        self.facts().1
    }

    /// The page that explains the rule.
    pub fn url(self) -> Option<String> {
        self.facts().2.map(|page| format!("{PAGES}{page}/"))
    }

    /// Off unless asked for.
    pub fn experimental(self) -> bool {
        self == Rule::InvalidDefinitionDescription
    }

    /// The rule with a published name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rule| rule.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found() {
        for rule in Rule::ALL {
            assert_eq!(Rule::by_name(rule.name()), Some(rule));
        }
        assert_eq!(Rule::by_name("Nope"), None);
        assert_eq!(
            Rule::JsonArgsRecommended.url().unwrap(),
            "https://docs.docker.com/go/dockerfile/rule/json-args-recommended/"
        );
    }
}
