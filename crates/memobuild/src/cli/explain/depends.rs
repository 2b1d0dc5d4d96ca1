//! Which steps depend on a path, as text.

use memobuild_engine::{
    explain::{Dependent, Origin, Touch, Touched},
    history::BuildRecord,
};

use crate::cli::{record::one_line, text};

/// One line for each way in which a step touched the path.
pub(super) fn table(build: &BuildRecord, path: &str, origin: Origin, found: &[Dependent]) -> String {
    let whose = match origin {
        Origin::Context => "of the build context",
        Origin::Image => "of the image",
    };
    if found.is_empty() {
        return format!("no step of build {} depends on {path} {whose}\n", build.id);
    }
    let mut rows = Vec::new();
    for dependent in found {
        let label = build.step(dependent.step).map(|step| one_line(&step.label)).unwrap_or_default();
        for (at, touch) in dependent.touches.iter().enumerate() {
            let (number, label) =
                if at == 0 { (format!("#{}", dependent.step), text::cut(&label, 60)) } else { Default::default() };
            rows.push([number, label, said(touch)]);
        }
    }
    format!("{path} {whose}, in build {}:\n\n{}", build.id, text::table(&rows))
}

fn said(touch: &Touch) -> String {
    let path = &touch.path;
    match &touch.how {
        Touched::CopiedTo(target) => format!("copies {path} to {target}"),
        Touched::Read => format!("read {path}"),
        Touched::LookedAt => format!("looked at {path}"),
        Touched::LookedFor => format!("looked for {path}, which was not there"),
        Touched::Listed => format!("listed {path}"),
        Touched::ListedBeside => format!("listed the directory that holds {path}"),
        Touched::Below(count) => {
            format!("looked at {count} {} below {path}", if *count == 1 { "path" } else { "paths" })
        }
        Touched::Everything => format!("depends on all there is, {path} included: what it looks at was not recorded"),
    }
}
