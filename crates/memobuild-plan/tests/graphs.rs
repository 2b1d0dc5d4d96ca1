//! Plans as pictures, and what holds of every plan.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed step should end the test")]

mod support;

use memobuild_plan::{
    Hooks,
    model::Plan,
    plan,
    render::{self, State, StateKind},
};
use proptest::prelude::*;
use support::*;

const TEXT: &str = "FROM busybox AS build\nRUN echo \"<a>\" # & b\nFROM scratch\nCOPY --from=build /a /b\n";

#[test]
fn pictures() {
    let planned = planned(TEXT);
    let text = render::text(&planned.plan, None);
    assert!(text.contains("#2 [build 2/2] RUN echo \"<a>\" # & b  <- #1\n"), "{text}");
    assert!(
        text.ends_with("#4 [stage-1 1/1] COPY --from=build /a /b  <- #3 #2\ntarget 1 (linux/amd64): #4\n"),
        "{text}"
    );
    let dot = render::dot(&planned.plan, None);
    assert!(
        dot.contains("s2 [label=\"[build 2/2] RUN echo \\\"<a>\\\" # & b\"];") && dot.contains("s2 -> s4;"),
        "{dot}"
    );
    let mermaid = render::mermaid(&planned.plan, None);
    assert!(mermaid.contains("RUN echo #34;#60;a#62;#34; #35; #38; b") && mermaid.contains("s3 --> s4"), "{mermaid}");
    let json = render::json(&planned.plan, None);
    assert_eq!(json["steps"][3]["needs"], serde_json::json!([3, 2]));
    assert_eq!(json["targets"][0]["step"], 4);
}

/// Some state for each step.
fn states(plan: &Plan) -> Vec<State> {
    let kinds = [StateKind::Hit, StateKind::Run, StateKind::Unknown, StateKind::Source];
    let state =
        |at: usize| State { kind: kinds[at % 4], why: (!at.is_multiple_of(3)).then(|| "a < b & \"c\"\u{7}".into()) };
    (0..plan.steps.len()).map(state).collect()
}

#[test]
fn states_stand_beside_the_steps() {
    let plan = planned(TEXT).plan;
    let states = states(&plan);
    let text = render::text(&plan, Some(&states));
    assert!(text.contains("#1 hit      [build 1/2] FROM") && text.contains("#4 source   [stage-1"), "{text}");
    assert!(
        text.contains("#2 run      [build 2/2] RUN echo \"<a>\" # & b  <- #1\n            a < b & \"c\"\n"),
        "{text}"
    );
    let dot = render::dot(&plan, Some(&states));
    assert!(dot.contains("label=\"run: [build 2/2]") && dot.contains("legend_unknown"), "{dot}");
    let mermaid = render::mermaid(&plan, Some(&states));
    assert!(mermaid.contains("s2[\"run: [build 2/2]") && mermaid.contains("\"]:::run\n"), "{mermaid}");
    assert!(mermaid.contains("subgraph g0[\"build\"]") && mermaid.contains("classDef unknown "), "{mermaid}");
    let json = render::json(&plan, Some(&states));
    assert_eq!((&json["steps"][1]["state"], &json["steps"][0]["why"]), (&"run".into(), &serde_json::Value::Null));
    let svg = render::svg(&plan, Some(&states));
    for part in [">stage-1</text>", "run (would run): 1<", "a &lt; b &amp; &quot;c&quot;", ">#2 RUN echo &quot;"] {
        assert!(svg.contains(part), "{part}: {svg}");
    }
    pictured(&svg);
}

/// A number in an attribute or a path.
fn number(text: &str) -> i64 {
    text.parse().unwrap_or_else(|_| panic!("no number: {text:?}"))
}

/// All tags are closed, everything is inside, and no edge between stages crosses a stage's box.
fn pictured(svg: &str) {
    let attribute = |tag: &str, name: &str| -> String {
        tag.split(&format!(" {name}=\"")).nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default().to_owned()
    };
    let tags: Vec<&str> = svg.split('<').skip(1).collect();
    let mut open = Vec::new();
    let (mut boxes, mut lines) = (Vec::new(), Vec::new());
    for tag in &tags {
        let (inside, _) = tag.split_once('>').expect("a tag that does not end");
        if let Some(name) = inside.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "{svg}");
        } else if !inside.ends_with('/') {
            open.push(inside.split(' ').next().unwrap());
        }
        if attribute(inside, "rx") == "8" {
            let all = ["x", "y", "width", "height"].map(|name| number(&attribute(inside, name)));
            boxes.push((all[0], all[1], all[0] + all[2], all[1] + all[3]));
        }
        if inside.starts_with("path class=\"l\"") && attribute(inside, "stroke") != "#8c959f" {
            lines.push(attribute(inside, "d"));
        }
    }
    assert!(open.is_empty(), "{open:?}");
    let (width, height) = (number(&attribute(tags[0], "width")), number(&attribute(tags[0], "height")));
    assert!(boxes.iter().all(|(x, y, right, low)| *x >= 0 && *y >= 0 && *right <= width && *low <= height));
    for line in lines {
        let start = line.strip_prefix('M').unwrap();
        let end = start.find(['H', 'V']).unwrap_or(start.len());
        let (x, y) = start[..end].split_once(' ').unwrap();
        let (mut x, mut y) = (number(x), number(y));
        let mut rest = &start[end..];
        while let Some(kind) = rest.chars().next() {
            let after = &rest[1..];
            let end = after.find(['H', 'V']).unwrap_or(after.len());
            let to = number(&after[..end]);
            let (next_x, next_y) = if kind == 'H' { (to, y) } else { (x, to) };
            for (left, top, right, low) in &boxes {
                let clear =
                    x.max(next_x) <= *left || x.min(next_x) >= *right || y.max(next_y) <= *top || y.min(next_y) >= *low;
                assert!(clear, "{line} crosses a box");
            }
            assert!((0..=width).contains(&next_x) && (0..=height).contains(&next_y), "{line} leaves the picture");
            (x, y, rest) = (next_x, next_y, &after[end..]);
        }
    }
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
        let states = states(plan);
        for states in [None, Some(states.as_slice())] {
            render::text(plan, states);
            render::dot(plan, states);
            render::mermaid(plan, states);
            render::json(plan, states);
            pictured(&render::svg(plan, states));
        }
    }
}
