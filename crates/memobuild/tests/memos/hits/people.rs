//! The same project elsewhere, at another time, by somebody else, and for another platform.

use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime},
};

use rustix::process::geteuid;

use super::{Start, check, scenarios, sources::SHOP};
use crate::{
    image,
    support::{Built, Project},
};

scenarios! {
    project_at_another_path: SHOP, |p| {
        p.shell("mkdir ../elsewhere; cp -r . ../elsewhere/copy");
        p.context = "../elsewhere/copy".into();
    }, [];
    project_behind_a_link: SHOP, |p| {
        p.shell("ln -s work ../link");
        p.context = "../link".into();
    }, [];
    dockerfile_by_another_name: SHOP, |p| {
        p.shell("cp Dockerfile ../recipe");
        p.flags(&["-f", "../recipe"]);
    }, [];
    project_checked_out_anew: SHOP, |p| p.shell("cp -r . ../new; rm -rf ./*; cp -r ../new/. ."), [];
}

/// Times of a context's files are in the image, and not in what it is known by: those of the first build stay.
#[test]
fn files_of_long_ago_and_of_a_far_future() {
    let Some(project) = SHOP.built() else { return };
    for time in ["1990-01-01", "2100-01-01"] {
        project.shell(&format!("find . -exec touch -h -d {time} '{{}}' +"));
        assert_eq!(project.build().ran, Vec::<String>::new());
    }
}

#[test]
fn on_another_day() {
    let Some(mut project) = SHOP.built() else { return };
    if !Path::new("/usr/bin/faketime").exists() {
        println!("skipped: needs faketime");
        return;
    }
    for day in ["-400 days", "+400 days"] {
        project.runner = vec!["/usr/bin/faketime".into(), day.into()];
        assert_eq!(project.build().ran, Vec::<String>::new(), "{day}");
    }
}

fn is_root() -> bool {
    let root = geteuid().is_root();
    if !root {
        println!("skipped: needs root");
    }
    root
}

#[test]
fn files_of_another_user() {
    if is_root() {
        check(&SHOP, |p| p.shell("chown -R 1234:4321 ."), &[]);
    }
}

/// With ranges of ids owners are real, as they are for root: what one recorded is good for the other.
#[test]
fn by_root_then_by_a_user_with_ranges_of_ids() {
    if !is_root() {
        return;
    }
    let Some(mut project) = SHOP.built() else { return };
    if project.by_nobody(true) {
        project.write("src/lib", "edited");
        let (built, image) = image::build(&project, &project.cache());
        assert_eq!(built.ran, ["COPY . .", "RUN cat src/main src/lib > main.out"], "{:#?}", built.reasons);
        assert_eq!(built.mode, "traced");
        assert_eq!(image::differences(&image, &by_root(&mut project)), Vec::<String>::new());
    }
}

/// With one id owners are played: such results are kept apart.
#[test]
fn by_root_then_by_a_user_with_one_id() {
    if !is_root() {
        return;
    }
    let Some(mut project) = SHOP.built() else { return };
    project.by_nobody(false);
    let (built, image) = image::build(&project, &project.cache());
    assert!(built.ran.len() == 7 && built.ran.iter().all(|step| step.starts_with("RUN ")), "{:?}", built.ran);
    assert_eq!(image::differences(&image, &by_root(&mut project)), Vec::<String>::new());
    project.by_nobody(false);
    project.write("src/lib", "edited");
    assert_eq!(project.build().ran, ["COPY . .", "RUN cat src/main src/lib > main.out"]);
}

fn by_root(project: &mut Project) -> image::Image {
    project.runner.clear();
    image::build(project, &project.place.path("../other-cache")).1
}

const TWO_PLATFORMS: Start = Start::new(
    "FROM --platform=$BUILDPLATFORM base AS build\n\
     COPY a b /\n\
     RUN cat /a > /out\n\
     FROM scratch\n\
     COPY --from=build /out /\n\
     LABEL for=$TARGETARCH\n",
    &[("a", "a\n"), ("b", "b\n")],
);

/// A step that does not depend on the target runs once for all of them.
#[test]
fn several_platforms_share_a_step() {
    let Some(mut project) = TWO_PLATFORMS.built() else { return };
    project.flags(&["--platform", "linux/amd64,linux/arm64"]);
    let ran = |built: Built| built.ran;
    assert_eq!(ran(project.build()), Vec::<String>::new());
    project.write("b", "edited");
    assert_eq!(ran(project.build()), ["COPY a b /"]);
    project.write("a", "edited");
    assert_eq!(ran(project.build()), ["COPY a b /", "RUN cat /a > /out", "COPY --from=build /out /"]);
}

/// A build of the files of a second ago is no other: the scan tells by content.
#[test]
fn files_written_again_without_a_change() {
    let Some(project) = SHOP.built() else { return };
    let later = SystemTime::now() + Duration::from_secs(5);
    for (name, content) in SHOP.files {
        let mode = fs::metadata(project.place.path(name)).unwrap().permissions();
        project.remove(name);
        project.write(name, content);
        fs::set_permissions(project.place.path(name), mode).unwrap();
        let file = fs::File::options().write(true).open(project.place.path(name)).unwrap();
        file.set_modified(later).unwrap();
    }
    assert_eq!(project.build().ran, Vec::<String>::new());
}
