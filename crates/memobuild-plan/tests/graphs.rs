//! Plans as pictures, and what holds of every plan.
#![allow(clippy::unwrap_used, reason = "a failed step should end the test")]

mod support;

use memobuild_plan::{Hooks, plan, render};
use proptest::prelude::*;
use support::*;

const TEXT: &str = "FROM busybox AS build\nRUN echo \"<a>\" # & b\nFROM scratch\nCOPY --from=build /a /b\n";

#[test]
fn pictures() {
    let planned = planned(TEXT);
    let text = render::text(&planned.plan);
    assert!(text.contains("#2 [build 2/2] RUN echo \"<a>\" # & b  <- #1\n"), "{text}");
    assert!(
        text.ends_with("#4 [stage-1 1/1] COPY --from=build /a /b  <- #3 #2\ntarget 1 (linux/amd64): #4\n"),
        "{text}"
    );
    let dot = render::dot(&planned.plan);
    assert!(
        dot.contains("s2 [label=\"[build 2/2] RUN echo \\\"<a>\\\" # & b\"];") && dot.contains("s2 -> s4;"),
        "{dot}"
    );
    let mermaid = render::mermaid(&planned.plan);
    assert!(mermaid.contains("RUN echo #34;#60;a#62;#34; #35; #38; b") && mermaid.contains("s3 --> s4"), "{mermaid}");
    let json = render::json(&planned.plan);
    assert_eq!(json["steps"][3]["needs"], serde_json::json!([3, 2]));
    assert_eq!(json["targets"][0]["step"], 4);
}

const LINES: [&str; 26] = [
    "FROM busybox",
    "FROM busybox AS a",
    "FROM a AS b",
    "FROM scratch AS c",
    "FROM --platform=$BUILDPLATFORM a",
    "ARG X=1 Y",
    "ARG X",
    "ENV X=$Y A=${X:-b}",
    "ENV PATH=",
    "RUN echo $X",
    "RUN --mount=type=cache,target=/c --mount=from=a,target=x make",
    "RUN <<E\n#!x\nE",
    "COPY $X a* ../b ./",
    "COPY --from=a --parents /x/./y /",
    "COPY --from=0 --link . .",
    "ADD http://h/x https://h/r.git /d/",
    "WORKDIR $X/..",
    "WORKDIR /",
    "USER $X",
    "ONBUILD COPY --from=b / /",
    "ONBUILD RUN x",
    "EXPOSE 1-3 $X",
    "CMD x",
    "ENTRYPOINT [\"x\"]",
    "SHELL [\"/x\"]",
    "# memobuild: exact",
];

proptest! {
    /// Whatever the file: no panic, and a plan that is made is in order, with nothing useless in it.
    #[test]
    fn plans_are_in_order(lines in prop::collection::vec(0..LINES.len(), 1..25), two in any::<bool>(), all in any::<bool>()) {
        let text: Vec<&str> = std::iter::once("FROM busybox AS z").chain(lines.iter().map(|&n| LINES[n])).collect();
        let Ok(file) = memobuild_dockerfile::parse(text.join("\n").as_bytes(), "Dockerfile") else {
            return Ok(());
        };
        let mut options = options();
        if two {
            options.platforms = ["linux/amd64", "linux/arm64"].map(|p| p.parse().unwrap()).to_vec();
        }
        let Ok(planned) = plan(&file, &options, &Images::default(), Hooks { all_stages: all, ..Hooks::default() }) else {
            return Ok(());
        };
        let plan = &planned.plan;
        let mut used = vec![false; plan.steps.len()];
        for target in &plan.targets {
            used[target.root.0] = true;
            prop_assert!(target.history.iter().filter_map(|entry| entry.step).all(|id| id <= target.root));
        }
        for (place, step) in plan.steps.iter().enumerate() {
            prop_assert_eq!(step.id.0, place);
            for input in step.op.inputs() {
                prop_assert!(input.0 < place);
                used[input.0] = true;
            }
            prop_assert!(plan.steps[..place].iter().all(|other| other.op != step.op || other.platform != step.platform));
        }
        prop_assert!(used.into_iter().all(|used| used));
        render::text(plan);
    }
}
