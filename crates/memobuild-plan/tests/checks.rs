//! What planning finds to say about a Dockerfile that works.
#![allow(clippy::unwrap_used, reason = "a failed step should end the test")]

mod support;

use memobuild_plan::model::Options;
use memobuild_plan::{Hooks, PlanErrorKind};
use support::*;

fn found(text: &str) -> Vec<String> {
    findings(&planned(text))
}

#[test]
fn undefined_variables() {
    assert_eq!(
        found("FROM busybox\nARG VERSION\nENV A=$VERSION B=$VERSON C=${PAHT:-x}\nCOPY $TARGETARCH /x\n"),
        [
            "3:UndefinedVar Usage of undefined variable '$VERSON'",
            "3:UndefinedVar Usage of undefined variable '$PAHT' (did you mean $PATH?)",
            "4:UndefinedVar Usage of undefined variable '$TARGETARCH'",
        ]
        .map(String::from)
    );
    assert!(found("FROM busybox\nRUN echo $X\nARG BUILDKIT_SBOM_SCAN_STAGE\n").is_empty());
}

#[test]
fn arguments_of_from() {
    assert_eq!(
        found("ARG IMAGE\nFROM busybox$IMAG AS a\nRUN x\n"),
        ["2:UndefinedArgInFrom FROM argument 'IMAG' is not declared (did you mean IMAGE?)"]
    );
    let given = Options { build_args: [("TAG".to_owned(), "busybox".to_owned())].into(), ..options() };
    let planned = try_plan("ARG TAG\nFROM $TAG\n", &given).unwrap();
    assert_eq!(
        findings(&planned),
        ["2:InvalidDefaultArgInFrom Default value for ARG $TAG results in empty or invalid base image name"]
    );
}

#[test]
fn platforms_of_from() {
    assert_eq!(
        found("FROM --platform=${TARGETPLATFORM} busybox\nRUN x\n"),
        ["1:RedundantTargetPlatform Setting platform to predefined ${TARGETPLATFORM} in FROM is redundant as this is \
          the default behavior"]
    );
    assert_eq!(
        found("FROM --platform=linux/amd64 busybox\nRUN x\n"),
        ["1:FromPlatformFlagConstDisallowed FROM --platform flag should not use constant value \"linux/amd64\""]
    );
    assert!(found("FROM --platform=linux/amd64 busybox AS build_amd64\nRUN x\n").is_empty());
    let arm = Options { platforms: vec!["linux/arm64".parse().unwrap()], ..options() };
    assert_eq!(
        findings(&try_plan("FROM busybox\nRUN x\n", &arm).unwrap()),
        ["1:InvalidBaseImagePlatform Base image busybox was pulled with platform \"linux/amd64\", expected \
          \"linux/arm64\" for current build"]
    );
}

#[test]
fn config_instructions() {
    assert_eq!(
        found("FROM busybox\nENV A b\nENV API_KEY=1\nCMD a\nCMD [\"b\"]\nWORKDIR x\nWORKDIR y\nEXPOSE 80/TCP 1:2\n"),
        [
            "2:LegacyKeyValueFormat \"ENV key=value\" should be used instead of legacy \"ENV key value\" format",
            "3:SecretsUsedInArgOrEnv Do not use ARG or ENV instructions for sensitive data (ENV \"API_KEY\")",
            "4:JSONArgsRecommended JSON arguments recommended for CMD to prevent unintended behavior related to OS signals",
            "4:MultipleInstructionsDisallowed Multiple CMD instructions should not be used in the same stage because only the last one will be used",
            "6:WorkdirRelativePath Relative workdir \"x\" can have unexpected results if the base image changes",
            "8:ExposeInvalidFormat EXPOSE instruction should not define an IP address or host-port mapping, found '1:2'",
            "8:ExposeProtoCasing Defined protocol '80/TCP' in EXPOSE instruction should be lowercase",
        ]
    );
    assert!(found("FROM busybox\nSHELL [\"/bin/sh\", \"-c\"]\nCMD a\n").is_empty());
}

#[test]
fn sources_that_are_ignored() {
    let ignored = |path: &str| path == "secret.txt";
    let hooks = Hooks { ignored: Some(&ignored), ..Hooks::default() };
    let text =
        "FROM busybox AS a\nCOPY ./secret.txt x /y/\nADD /secret.txt /z\nCOPY . /all\nCOPY --from=a secret.txt /b\n";
    let text = text.replace("COPY --from=a", "FROM busybox\nCOPY --from=a");
    let planned = plan_with(&text, &options(), &Images::default(), hooks).unwrap();
    assert_eq!(
        findings(&planned),
        [
            "2:CopyIgnoredFile Attempting to Copy file \"secret.txt\" that is excluded by .dockerignore",
            "3:CopyIgnoredFile Attempting to Add file \"/secret.txt\" that is excluded by .dockerignore",
        ]
    );
}

#[test]
fn skipping_and_failing() {
    assert!(found("# check=skip=UndefinedVar\nFROM busybox\nENV A=$B\n").is_empty());
    assert_eq!(found("FROM busybox\n# check=skip=UndefinedVar\nENV A=$B\nENV A=$B\n").len(), 1);
    let error = try_plan("# check=error=true\nFROM busybox\nENV A=$B\n", &options()).unwrap_err();
    assert_eq!(error.kind, PlanErrorKind::Checks);
    assert!(error.to_string().contains("lint violation found for rules: UndefinedVar"));
    assert_eq!((error.diagnostics.len(), error.findings.len()), (2, 1));
    let arg =
        Options { build_args: [("BUILDKIT_DOCKERFILE_CHECK".to_owned(), "error=true".to_owned())].into(), ..options() };
    assert!(try_plan("FROM busybox\nENV A=$B\n", &arg).is_err());
}

#[test]
fn an_early_end_keeps_what_the_text_tells() {
    let error = try_plan("FROM nowhere\nMAINTAINER x\nENV a b\n", &options()).unwrap_err();
    let rules: Vec<&str> = error.findings.iter().map(|finding| finding.rule.name()).collect();
    assert_eq!(rules, ["MaintainerDeprecated", "LegacyKeyValueFormat"]);
}
