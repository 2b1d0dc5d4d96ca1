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

impl Rule {
    /// The published name, such as `JSONArgsRecommended`.
    pub fn name(self) -> &'static str {
        todo!()
    }

    /// One sentence on what the rule asks for.
    pub fn description(self) -> &'static str {
        todo!()
    }

    /// The page that explains the rule.
    pub fn url(self) -> Option<&'static str> {
        todo!()
    }

    /// Off unless asked for.
    pub fn experimental(self) -> bool {
        todo!()
    }
}
