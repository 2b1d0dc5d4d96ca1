use super::*;
use crate::parse;

fn findings_with(text: &str, options: &str) -> Vec<(&'static str, String, u32)> {
    let file = parse(text.as_bytes(), "Dockerfile").unwrap();
    lint(&file, &CheckOptions::parse(options).unwrap())
        .into_iter()
        .map(|f| (f.rule.name(), f.message, f.span.first_line()))
        .collect()
}

fn findings(text: &str) -> Vec<(&'static str, String, u32)> {
    findings_with(text, "")
}

fn names(text: &str) -> Vec<&'static str> {
    findings(text).into_iter().map(|f| f.0).collect()
}

#[test]
fn each_rule_has_its_words() {
    for (text, rule, message, line) in [
        ("FROM a AS Base", "StageNameCasing", "Stage name 'Base' should be lowercase", 1),
        ("FROM a as b", "FromAsCasing", "'as' and 'FROM' keywords' casing do not match", 1),
        ("from a AS b", "FromAsCasing", "'AS' and 'from' keywords' casing do not match", 1),
        ("FROM a\nRUN b \\\n\n  c", "NoEmptyContinuation", "Empty continuation line", 4),
        (
            "FROM a\nRUN b\nworkdir /x",
            "ConsistentInstructionCasing",
            "Command 'workdir' should match the case of the command majority (uppercase)",
            3,
        ),
        (
            "from a\nrun b\nWorkdir /x",
            "ConsistentInstructionCasing",
            "Command 'Workdir' should match the case of the command majority (lowercase)",
            3,
        ),
        (
            "FROM a AS x\nFROM b AS x",
            "DuplicateStageName",
            "Duplicate stage name \"x\", stage names should be unique",
            2,
        ),
        (
            "FROM a AS scratch",
            "ReservedStageName",
            "Stage name should not use the same name as reserved stage \"scratch\"",
            1,
        ),
        (
            "FROM a\nCMD x",
            "JSONArgsRecommended",
            "JSON arguments recommended for CMD to prevent unintended behavior related to OS signals",
            2,
        ),
        (
            "FROM a\nMAINTAINER x",
            "MaintainerDeprecated",
            "Maintainer instruction is deprecated in favor of using label",
            2,
        ),
        (
            "FROM a\nCMD [\"a\"]\nCMD [\"b\"]",
            "MultipleInstructionsDisallowed",
            "Multiple CMD instructions should not be used in the same stage because only the last one will be used",
            2,
        ),
        (
            "FROM a\nENV x y",
            "LegacyKeyValueFormat",
            "\"ENV key=value\" should be used instead of legacy \"ENV key value\" format",
            2,
        ),
        (
            "FROM a\nEXPOSE 80/TCP",
            "ExposeProtoCasing",
            "Defined protocol '80/TCP' in EXPOSE instruction should be lowercase",
            2,
        ),
        (
            "FROM a\nEXPOSE 1:80",
            "ExposeInvalidFormat",
            "EXPOSE instruction should not define an IP address or host-port mapping, found '1:80'",
            2,
        ),
    ] {
        assert_eq!(findings(text), [(rule, message.to_owned(), line)], "{text}");
    }
}

#[test]
fn fine_files_have_no_findings() {
    for text in [
        "FROM a AS b\nRUN x\nCMD [\"x\"]\nHEALTHCHECK CMD x\nFROM b AS c\nCMD [\"y\"]\nEXPOSE $P 80/tcp",
        "from a as b\nrun x\nenv a=b",
        "FROM a\nSHELL [\"/bin/bash\", \"-c\"]\nCMD x\nENTRYPOINT y",
        "FROM a AS b\nSHELL [\"/bin/bash\", \"-c\"]\nFROM B\nCMD x",
        "# not about it\nFROM a AS b",
    ] {
        assert_eq!(findings(text), [], "{text}");
    }
}

#[test]
fn skipping() {
    assert_eq!(names("# check=skip=MaintainerDeprecated\nFROM a\nMAINTAINER x\nCMD y"), ["JSONArgsRecommended"]);
    assert!(names("# check=skip=all\nFROM a\nMAINTAINER x\nCMD y").is_empty());
    assert_eq!(names("FROM a\n# check=skip=all\nMAINTAINER x\nCMD y"), ["JSONArgsRecommended"]);
    assert!(findings_with("FROM a\nCMD y", "skip=JSONArgsRecommended").is_empty());
}

#[test]
fn descriptions_are_experimental() {
    let text = "# c: v\nARG v=1\n# base the base\nFROM a AS base\n# wrong thing\nARG x y\n# y is right\nARG x y\n";
    assert!(findings(text).is_empty());
    let found = findings_with(text, "experimental=InvalidDefinitionDescription");
    let lines: Vec<u32> = found.iter().map(|f| f.2).collect();
    assert_eq!(lines, [2, 6]);
    assert_eq!(found[0].1, "Comment for ARG should follow the format: `# v <description>`");
    assert_eq!(found[1].1, "Comment for ARG should follow the format: `# <arg_key> <description>`");
}

#[test]
fn findings_render() {
    let file = parse(b"FROM a\nMAINTAINER x\n", "Dockerfile").unwrap();
    let all = lint(&file, &CheckOptions::default());
    insta::assert_snapshot!(all[0].diagnostic(&file.source).render(false));
}
