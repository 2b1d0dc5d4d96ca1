//! The table of scenarios: a project is built, something is changed, it is built again. Each line says which steps must
//! run; all others must not. What comes out must be what a build from nothing in another cache gives.
//!
//! A line is a test of its own: name, project, change, steps.

mod bases;
mod copies;
mod defined;
mod kinds;
mod mounts;
mod people;
mod sources;

use crate::{
    image,
    support::{self, Project},
};

/// A project before the change.
pub struct Start {
    /// Without FROM it stands on the base image.
    pub dockerfile: &'static str,
    pub files: &'static [(&'static str, &'static str)],
    /// Shell script that prepares the context.
    pub prepare: &'static str,
    /// Shell script that prepares the root of the base image.
    pub base: &'static str,
}

impl Start {
    pub const fn new(dockerfile: &'static str, files: &'static [(&'static str, &'static str)]) -> Self {
        Self { dockerfile, files, prepare: "", base: "" }
    }

    pub const fn prepare(self, script: &'static str) -> Self {
        Self { prepare: script, ..self }
    }

    pub const fn base(self, script: &'static str) -> Self {
        Self { base: script, ..self }
    }

    /// Built once. None where steps can't be traced: said, and the test ends.
    pub fn built(&self) -> Option<Project> {
        if !support::has_busybox() {
            return None;
        }
        let project = Project::new(self.dockerfile, self.files);
        if !self.prepare.is_empty() {
            project.shell(self.prepare);
        }
        if !self.base.is_empty() {
            project.make_base(self.base);
        }
        support::is_traced(&project.build()).then_some(project)
    }
}

/// One line of the table.
pub fn check(start: &Start, change: impl Fn(&mut Project), must_run: &[&str]) {
    let Some(mut project) = start.built() else { return };
    change(&mut project);
    let (built, image) = image::build(&project, &project.cache());
    assert_eq!(built.ran, must_run, "steps that ran, and those that must; why: {:#?}", built.reasons);
    let (all, from_nothing) = image::build(&project, &project.place.path("../other-cache"));
    assert!(all.ran.len() == built.ran.len() + built.reused.len() && all.ran.len() > 1, "{all:?}");
    assert_eq!(image::differences(&image, &from_nothing), Vec::<String>::new());
}

/// Lines: `name: start, change, [steps that must run];`
macro_rules! scenarios {
    ($($(#[$doc:meta])* $name:ident: $start:expr, $change:expr, [$($step:expr),* $(,)?];)*) => {$(
        $(#[$doc])*
        #[test]
        fn $name() {
            $crate::hits::check(&$start, $change, &[$($step),*]);
        }
    )*};
}
use scenarios;
