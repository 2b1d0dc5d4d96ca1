//! A resolver that knows a few images, and short ways to plan a text.
#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used, clippy::expect_used, reason = "test support")]

use std::sync::Mutex;

use memobuild_image::{ImageConfig, Platform};
use memobuild_plan::model::{BaseRequest, BaseResolver, Options, ResolvedBase, Step};
use memobuild_plan::{Hooks, PlanError, Planned, plan};

pub const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Knows `busybox` and what a test adds; remembers what it was asked.
#[derive(Default)]
pub struct Images {
    pub more: Vec<(&'static str, &'static str)>,
    pub asked: Mutex<Vec<String>>,
}

const BUSYBOX: &str = r#"{"created":"2020-01-01T00:00:00Z","architecture":"amd64","os":"linux",
    "config":{"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],"Cmd":["sh"],"WorkingDir":"/"},
    "rootfs":{"type":"layers","diff_ids":[]},
    "history":[{"created":"2020-01-01T00:00:00Z","created_by":"busybox base"}]}"#;

impl BaseResolver for Images {
    fn resolve(&self, requests: &[BaseRequest]) -> Vec<Result<ResolvedBase, String>> {
        let mut asked = self.asked.lock().unwrap();
        let first = asked.len();
        asked.extend(requests.iter().map(|request| format!("{} {}", request.name, request.platform)));
        requests
            .iter()
            .enumerate()
            .map(|(n, request)| {
                let name = request.name.trim_end_matches(":latest");
                let known = self.more.iter().find(|(known, _)| *known == name).map(|(_, config)| *config);
                let text = known.or((name == "busybox").then_some(BUSYBOX)).ok_or("not found")?;
                let mut config: ImageConfig = serde_json::from_str(text).map_err(|e| e.to_string())?;
                if config.platform.architecture.is_empty() {
                    config.platform = request.platform.clone();
                }
                Ok(ResolvedBase { handle: first + n, digest: format!("sha256:{:064}", first + n), config })
            })
            .collect()
    }
}

pub fn amd64() -> Platform {
    "linux/amd64".parse().unwrap()
}

pub fn options() -> Options {
    Options { build_platform: amd64(), ..Options::default() }
}

pub fn try_plan(text: &str, options: &Options) -> Result<Planned, PlanError> {
    plan_with(text, options, &Images::default(), Hooks::default())
}

pub fn plan_with(text: &str, options: &Options, images: &Images, hooks: Hooks<'_>) -> Result<Planned, PlanError> {
    let file = memobuild_dockerfile::parse(text.as_bytes(), "Dockerfile").expect("the Dockerfile parses");
    plan(&file, options, images, hooks)
}

pub fn planned(text: &str) -> Planned {
    try_plan(text, &options()).unwrap_or_else(|e| panic!("{}", render(&e)))
}

pub fn error(text: &str) -> String {
    render(&try_plan(text, &options()).expect_err("it must fail"))
}

pub fn render(error: &PlanError) -> String {
    error.diagnostics.iter().map(|d| d.render(false)).collect::<Vec<_>>().join("\n")
}

pub fn labels(planned: &Planned) -> Vec<&str> {
    planned.plan.steps.iter().map(|step| step.label.as_str()).collect()
}

/// The step whose label ends so.
pub fn step<'a>(planned: &'a Planned, end: &str) -> &'a Step {
    planned
        .plan
        .steps
        .iter()
        .find(|step| step.label.ends_with(end))
        .unwrap_or_else(|| panic!("no step {end:?} in {:?}", labels(planned)))
}

pub fn history(planned: &Planned) -> Vec<&str> {
    planned.plan.targets[0].history.iter().map(|entry| entry.created_by.as_str()).collect()
}

pub fn findings(planned: &Planned) -> Vec<String> {
    planned
        .findings
        .iter()
        .map(|finding| format!("{}:{} {}", finding.span.first_line(), finding.rule.name(), finding.message))
        .collect()
}
