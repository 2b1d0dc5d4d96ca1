//! Comments and flags that change what is reused.

use std::{path::Path, thread::sleep, time::Duration};

use crate::{hits::Start, image, support::Project};

const COPY: &str = "COPY . .";
/// What no file says: another word in every run.
const WORD: &str = "cat /proc/sys/kernel/random/uuid";

/// A step below `COPY . .`.
fn project(step: &str) -> Option<Project> {
    let files = &[("read", "read\n"), ("looked", "looked\n"), ("other", "other\n")];
    let project = Start::new("WORKDIR /app\nCOPY . .\nRUN true\n", files).built()?;
    project.dockerfile(&format!("WORKDIR /app\nCOPY . .\n{step}\n"));
    // The Dockerfile is kept out of the context: changes of it alone are no edits.
    project.write(".dockerignore", "Dockerfile\n.dockerignore\n");
    project.build();
    Some(project)
}

/// The second build of these must be right, too.
fn equals_a_build_from_nothing(project: &Project) {
    let (_, image) = image::build(project, &project.cache());
    let (_, from_nothing) = image::build(project, &project.place.path("../other-cache"));
    assert_eq!(image::differences(&image, &from_nothing), Vec::<String>::new());
}

#[test]
fn exact_runs_after_any_edit() {
    let step = "RUN cat read > out";
    let Some(project) = project(&format!("# memobuild: exact\n{step}")) else { return };
    assert_eq!(project.build().ran, Vec::<String>::new());
    project.write("other", "edited");
    assert_eq!(project.build().ran, [COPY, step]);
    project.shell("touch read other");
    assert_eq!(project.build().ran, Vec::<String>::new(), "times are no content");
    project.write("other", "other\n");
    assert_eq!(project.build().ran, Vec::<String>::new(), "equal files as in the first build");
    // Nothing was recorded by facts: without the comment it runs once more.
    project.replace("# memobuild: exact\n", "");
    project.write("other", "once more");
    assert_eq!(project.build().ran, [COPY, step]);
    project.write("other", "and again");
    assert_eq!(project.build().ran, [COPY]);
    // What is known by facts does not count once the comment is back.
    project.replace("RUN cat", "# memobuild: exact\nRUN cat");
    project.write("other", "the last");
    assert_eq!(project.build().ran, [COPY, step]);
    equals_a_build_from_nothing(&project);
}

const STAT_KIND: &str = "# memobuild: stat=kind\n";
const LOOKS: &str = "RUN test -s looked && stat -c %s looked > size; cat read > out";

#[test]
fn stat_kind_ignores_the_content_of_files_that_were_only_looked_at() {
    let Some(project) = project(&format!("{STAT_KIND}{LOOKS}")) else { return };
    project.write("looked", "another size");
    assert_eq!(project.build().ran, [COPY]);
    project.write("read", "edited\n");
    assert_eq!(project.build().ran, [COPY, LOOKS]);
    project.shell("chmod 600 looked");
    assert_eq!(project.build().ran, [COPY, LOOKS], "the mode counts");
    project.shell("rm looked; mkdir looked");
    assert_eq!(project.build().ran, [COPY, LOOKS], "the kind counts");
    project.shell("rmdir looked");
    assert_eq!(project.build().ran, [COPY, LOOKS], "that it is there counts");
}

#[test]
fn what_stat_kind_found_is_nothing_to_the_step_without_it() {
    let Some(project) = project(&format!("{STAT_KIND}{LOOKS}")) else { return };
    project.write("looked", "another size");
    assert_eq!(project.build().ran, [COPY]);
    project.replace(STAT_KIND, "");
    assert_eq!(project.build().ran, [LOOKS]);
    assert_eq!(project.tree(&[])["app/size"], "100644 12\n");
    equals_a_build_from_nothing(&project);
    // The same once more, by what is known by now.
    project.replace("RUN test", &format!("{STAT_KIND}RUN test"));
    project.write("looked", "size again");
    assert_eq!(project.build().ran, [COPY]);
    project.replace(STAT_KIND, "");
    assert_eq!(project.build().ran, [LOOKS]);
    equals_a_build_from_nothing(&project);
}

fn word(project: &Project) -> String {
    project.tree(&[])["app/word"].clone()
}

#[test]
fn max_age_makes_a_result_expire() {
    let step = format!("RUN {WORD} > word; cat read > out");
    let Some(project) = project(&format!("# memobuild: max-age=1h\n{step}")) else { return };
    let first = word(&project);
    project.write("other", "edited");
    assert_eq!(project.build().ran, [COPY], "younger than an hour");
    assert_eq!(word(&project), first);
    project.replace("max-age=1h", "max-age=1s");
    sleep(Duration::from_millis(2100));
    let built = project.build();
    assert_eq!(built.ran, [step.as_str()]);
    assert!(built.reasons[&step].contains("max-age"), "{built:?}");
    project.replace("max-age=1s", "max-age=1h");
    let second = word(&project);
    assert_ne!(first, second);
    // The older result is not what another tree gets.
    project.write("other", "edited again");
    assert_eq!(project.build().ran, [COPY]);
    assert_eq!(word(&project), second);
}

#[test]
fn max_age_over_days() {
    let step = format!("RUN {WORD} > word");
    let Some(mut project) = project(&format!("# memobuild: max-age=24h\n{step}")) else { return };
    if !Path::new("/usr/bin/faketime").exists() {
        println!("skipped: needs faketime");
        return;
    }
    for (day, runs) in [("+23 hours", 0), ("+25 hours", 1)] {
        project.runner = vec!["/usr/bin/faketime".into(), day.into()];
        assert_eq!(project.build().ran.len(), runs, "{day}");
    }
}

#[test]
fn max_age_by_flag_is_for_steps_that_can_use_the_network() {
    let online = format!("RUN {WORD} > word");
    let offline = format!("RUN --network=none {WORD} > offline");
    let Some(project) = project(&format!("{offline}\n{online}")) else { return };
    assert_eq!(project.build_with(&["--max-age", "1h"]).ran, Vec::<String>::new());
    sleep(Duration::from_millis(2100));
    assert_eq!(project.build_with(&["--max-age", "1s"]).ran, [online.as_str()]);
    project.replace("RUN cat", "# memobuild: max-age=1h\nRUN cat");
    sleep(Duration::from_millis(2100));
    assert_eq!(project.build_with(&["--max-age", "1s"]).ran, Vec::<String>::new(), "the comment is nearer");
}

#[test]
fn no_trace_reuses_over_equal_files_only() {
    let step = "RUN cat read > out";
    let Some(project) = project(step) else { return };
    project.write("other", "edited");
    assert_eq!(project.build_with(&["--no-trace"]).ran, [COPY, step]);
    assert_eq!(project.build().ran, Vec::<String>::new(), "an equal tree is enough for both");
    project.write("other", "edited again");
    assert_eq!(project.build_with(&["--no-trace"]).ran, [COPY, step]);
    project.write("other", "the last");
    assert_eq!(project.build().ran, [COPY], "what was known by facts still is");
    equals_a_build_from_nothing(&project);
}

#[test]
fn after_no_cache_an_edit_does_not_bring_the_older_result_back() {
    let Some(project) = project(&format!("RUN {WORD} > word; cat read > out")) else { return };
    let first = word(&project);
    assert_eq!(project.build_with(&["--no-cache"]).runs().len(), 1);
    let second = word(&project);
    assert_ne!(first, second);
    project.write("other", "edited");
    assert_eq!(project.build().ran, [COPY]);
    assert_eq!(word(&project), second);
}

#[test]
fn after_no_cache_neither_does_an_undone_edit() {
    let Some(project) = project(&format!("RUN {WORD} > word; cat read > out")) else { return };
    let first = word(&project);
    project.write("other", "edited");
    assert_eq!(project.build().ran, [COPY]);
    assert_eq!(word(&project), first);
    project.build_with(&["--no-cache"]);
    let second = word(&project);
    project.write("other", "other\n");
    project.build();
    assert_eq!(word(&project), second);
}

/// What the step looks at may hang on what is no file: then the older result's facts can hold where the newer one's
/// don't.
#[test]
fn after_no_cache_neither_does_an_edit_of_what_only_the_newer_result_read() {
    let step =
        "RUN --mount=type=cache,target=/c cat $(test -e /c/later && echo read || echo other) > word; touch /c/later";
    let Some(project) = project(step) else { return };
    assert_eq!(word(&project), "100644 other\n");
    project.build_with(&["--no-cache"]);
    assert_eq!(word(&project), "100644 read\n");
    project.write("read", "edited\n");
    project.build();
    assert_eq!(word(&project), "100644 edited\n");
}
