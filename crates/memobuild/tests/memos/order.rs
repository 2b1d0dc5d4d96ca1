//! Files of a step that was reused must not look older than those of a step before it that ran again.

use crate::support::{Project, traced};

/// `a` and `b` are made by steps of their own; the last step compares their times (busybox does so by the second).
const COMPARES: &str = "\
WORKDIR /w
COPY a b ./
RUN cat a > a.o
RUN sleep 1; cat b > b.o
COPY c .
RUN cat c; find . -name b.o -newer a.o > newer
";

#[test]
fn a_reused_step_runs_again_before_times_are_compared() {
    if !traced() {
        return;
    }
    let project = Project::new(COMPARES, &[("a", "1"), ("b", "1"), ("c", "1")]);
    assert_eq!(project.build().runs().len(), 3);
    project.write("a", "2");
    let built = project.build();
    // The comparing step saw a.o newer than b.o, so b.o was made anew, and then it ran once more.
    let last = "cat c; find . -name b.o -newer a.o > newer";
    assert_eq!(built.runs(), ["cat a > a.o", last, "sleep 1; cat b > b.o", last]);
    assert_eq!(project.tree(&[])["w/newer"], "100644 ./b.o\n");
    // What is right now stays right.
    project.write("c", "2");
    assert_eq!(project.build().runs(), [last]);
    assert_eq!(project.tree(&[])["w/newer"], "100644 ./b.o\n");
}

#[test]
fn nothing_runs_again_for_times_that_nobody_looked_at() {
    if !traced() {
        return;
    }
    let steps = COMPARES.replace("find . -name b.o -newer a.o > newer", "cat a.o > last");
    let project = Project::new(&steps, &[("a", "1"), ("b", "1"), ("c", "1")]);
    project.build();
    project.write("a", "2");
    assert_eq!(project.build().runs(), ["cat a > a.o", "cat c; cat a.o > last"]);
}

#[test]
fn a_step_that_fails_for_the_order_of_times_is_tried_once_more() {
    if !traced() {
        return;
    }
    let steps = COMPARES.replace("> newer", "| grep -q b.o");
    let project = Project::new(&steps, &[("a", "1"), ("b", "1"), ("c", "1")]);
    project.build();
    project.write("a", "2");
    assert_eq!(project.build().runs().len(), 4);
}

/// The steps as they stand, a second apart, and with the first two in each other's place.
fn both_orders() -> (String, String) {
    let first = COMPARES.replace("RUN cat a", "RUN sleep 1; cat a");
    let (a, b) = ("RUN sleep 1; cat a > a.o\n", "RUN sleep 1; cat b > b.o\n");
    let swapped = first.replace(&[a, b].concat(), &[b, a].concat());
    assert_ne!(first, swapped);
    (first, swapped)
}

/// The comparing step's facts are the same whichever of the two steps comes first; what it finds is not.
#[test]
fn steps_that_change_places_are_compared_anew() {
    if !traced() {
        return;
    }
    let (first, swapped) = both_orders();
    let project = Project::new(&first, &[("a", "1"), ("b", "1"), ("c", "1")]);
    project.build();
    project.dockerfile(&swapped);
    let last = "cat c; find . -name b.o -newer a.o > newer";
    assert_eq!(project.build().runs(), [last, "sleep 1; cat a > a.o", last]);
    assert_eq!(project.tree(&[])["w/newer"], "100644 ");
    assert_eq!(project.build().runs(), [] as [&str; 0]);
    project.dockerfile(&first);
    project.build();
    assert_eq!(project.tree(&[])["w/newer"], "100644 ./b.o\n");
}

/// A COPY passes times on.
#[test]
fn so_are_copies_of_their_files() {
    if !traced() {
        return;
    }
    let copied = |steps: &str| {
        let (stage, last) = steps.split_once("COPY c .\n").unwrap();
        format!("FROM base AS made\n{stage}FROM base\nWORKDIR /w\nCOPY --from=made /w/a.o /w/b.o ./\nCOPY c .\n{last}")
    };
    let (first, swapped) = both_orders();
    let project = Project::new(&copied(&first), &[("a", "1"), ("b", "1"), ("c", "1")]);
    project.build();
    assert_eq!(project.tree(&[])["w/newer"], "100644 ./b.o\n");
    project.dockerfile(&copied(&swapped));
    project.build();
    assert_eq!(project.tree(&[])["w/newer"], "100644 ");
}

/// What stands between two steps, and which of two stages comes first in the file, is no order of theirs.
#[test]
fn a_step_between_two_others_changes_no_order() {
    if !traced() {
        return;
    }
    let project = Project::new(COMPARES, &[("a", "1"), ("b", "1"), ("c", "1")]);
    project.build();
    project.dockerfile(&COMPARES.replace("RUN sleep", "RUN echo more > /more\nRUN sleep"));
    assert_eq!(project.build().runs(), ["echo more > /more"]);
}
