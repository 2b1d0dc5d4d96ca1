//! Links and names that lead out of an image or a context, in everything that memobuild itself follows: layers, archives,
//! destinations of copies, mount points, the context.

use std::{fs, os::unix::fs::symlink};

use super::{Test, World};
use crate::images::{self, Tar};

pub const TESTS: &[(&str, Test)] = &[
    ("layers_that_turn_directories_into_links", layers_that_turn_directories_into_links),
    ("archives_that_lead_out", archives_that_lead_out),
    ("destinations_that_lead_out", destinations_that_lead_out),
    ("mount_points_that_lead_out", mount_points_that_lead_out),
    ("sources_that_lead_out", sources_that_lead_out),
    ("a_context_that_leads_out", a_context_that_leads_out),
];

pub const EVERYWHERE: &[(&str, Test)] = &[
    ("layers_that_turn_directories_into_links", layers_that_turn_directories_into_links),
    ("destinations_that_lead_out", destinations_that_lead_out),
];

/// What a step runs to have something laid out on disk, served or scanned.
const LOOK: &str = "RUN cat /gate/secret /gate/dir/file > /got; echo changed > /gate/dir/file; true\n";

fn layers_that_turn_directories_into_links(world: &mut World) {
    let outside = world.host.dir().display().to_string();
    let Some(busybox) = images::busybox_layer() else { return };
    let lower = Tar::default().dir("gate").dir("gate/dir").file("gate/dir/file", b"of the image").finish();
    // The same name as a link, and files below it in that layer and in the next.
    let turned = Tar::default().symlink("gate", &outside).file("gate/dir/file", b"changed").finish();
    let later = Tar::default().file("gate/secret", b"changed").file("gate/new", b"new").finish();
    let removing = Tar::default().file("gate/.wh.secret", b"").file("gate/dir/.wh..wh..opq", b"").finish();
    let linked = Tar::default().hard_link("got-by-link", &format!("{outside}/secret")).finish();
    let base = world.project.base();
    for layers in [
        vec![&busybox, &lower, &turned],
        vec![&busybox, &lower, &turned, &later],
        vec![&busybox, &turned, &later, &removing],
        vec![&busybox, &linked],
    ] {
        fs::remove_dir_all(&base).unwrap();
        images::layout(&base, &layers.into_iter().cloned().collect::<Vec<_>>());
        for dockerfile in [LOOK, "COPY Dockerfile /gate/dir/file\nCOPY Dockerfile /gate/new\n", "WORKDIR /gate/made\n"]
        {
            world.stays_in(dockerfile);
        }
    }
}

fn archives_that_lead_out(world: &mut World) {
    let outside = world.host.dir().display().to_string();
    let up = "../".repeat(12);
    for archive in [
        Tar::default().file(&format!("{up}.{outside}/dir/file"), b"changed"),
        Tar::default().file(&format!("{outside}/dir/file"), b"changed"),
        Tar::default().symlink("gate", &outside).file("gate/dir/file", b"changed"),
        Tar::default()
            .symlink("up", "..")
            .symlink("gate", &format!("up/up/up{outside}"))
            .file("gate/secret", b"changed"),
        Tar::default().hard_link("secret", &format!("{outside}/secret")),
        Tar::default().hard_link("secret", &format!("{up}.{outside}/secret")),
        Tar::default()
            .symlink("link", &format!("{outside}/secret"))
            .hard_link("secret", "link")
            .file("secret", b"changed"),
        Tar::default().dir("gate").symlink("gate", &outside).dir("gate/dir").file("gate/dir/file", b"changed"),
    ] {
        fs::write(world.project.place.path("evil.tar"), archive.finish()).unwrap();
        for dockerfile in ["ADD evil.tar /in/\n", "ADD evil.tar /\nRUN cat /secret /in/secret > /got; true\n"] {
            world.stays_in(dockerfile);
        }
        // With nothing below it.
        world.stays_in("FROM scratch\nADD evil.tar /\n");
    }
}

fn destinations_that_lead_out(world: &mut World) {
    let outside = world.host.dir().display().to_string();
    fs::write(world.project.place.path("a.tar"), Tar::default().file("file", b"changed").finish()).unwrap();
    world.project.write("file", "changed");
    for target in [outside.clone(), format!("{}.{outside}", "../".repeat(20)), format!("/proc/1/root{outside}")] {
        for step in [
            "COPY file /gate/dir/file",
            "COPY file /gate/dir/",
            "COPY --link file /gate/dir/",
            "ADD a.tar /gate/dir/",
            "COPY <<file /gate/dir/\nchanged\nfile",
            "WORKDIR /gate/made",
            "COPY --from=base /etc/passwd /gate/secret",
            "RUN echo changed > /gate/dir/file; true",
        ] {
            world.stays_in(&format!("RUN ln -s {target} /gate\n{step}\n"));
        }
    }
}

/// Mount points are made where they lack.
fn mount_points_that_lead_out(world: &mut World) {
    let outside = world.host.dir().display().to_string();
    world.project.write("file", "changed");
    world.project.write("key", "a secret of the build's own");
    world.project.flags(&["--secret", "id=key,src=key"]);
    for target in [outside.clone(), format!("{}.{outside}", "../".repeat(20))] {
        for mount in [
            "type=bind,source=file,target=/gate/dir/file",
            "type=bind,target=/gate/dir",
            "type=bind,target=/gate/made/in/it,rw",
            "type=cache,target=/gate/made",
            "type=tmpfs,target=/gate/dir",
            "type=secret,id=key,target=/gate/made/key",
            "type=secret,id=key,target=/gate/secret",
        ] {
            world.stays_in(&format!(
                "RUN ln -s {target} /gate\nRUN --mount={mount} echo changed > /gate/dir/new; true\n"
            ));
        }
    }
}

/// What copies and mounts take from an image or a stage, which is not the machine.
fn sources_that_lead_out(world: &mut World) {
    let outside = world.host.dir().display().to_string();
    for target in
        [outside.clone(), format!("{}.{outside}", "../".repeat(20)), "/proc/self/root".into(), "/proc/1/cwd".into()]
    {
        let stage = format!("FROM base AS stage\nRUN ln -s {target} /gate; ln -s {target}/secret /direct\nFROM base\n");
        for step in [
            "COPY --from=stage /gate/secret /got",
            "COPY --from=stage /gate/ /got/",
            "COPY --from=stage /direct /got",
            "COPY --from=stage --parents /gate/./secret /got/",
            "RUN --mount=type=bind,from=stage,source=/gate,target=/m cat /m/secret > /got",
            "RUN --mount=type=bind,from=stage,source=/direct,target=/m cat /m > /got",
            "RUN --mount=type=cache,from=stage,source=/gate,target=/m cat /m/secret > /got",
        ] {
            world.stays_in(&format!("{stage}{step}\n"));
        }
    }
}

/// Links of the context are followed within it, or copied as links.
fn a_context_that_leads_out(world: &mut World) {
    let outside = world.host.dir().to_owned();
    let context = world.project.place.path("");
    let at = |name: &str| context.join(name);
    fs::create_dir(at("sub")).unwrap();
    symlink(&outside, at("gate")).unwrap();
    symlink(outside.join("secret"), at("direct")).unwrap();
    symlink(format!("{}.{}", "../".repeat(20), outside.display()), at("sub/up")).unwrap();
    symlink(outside.join("dir/file"), at("archive.tar")).unwrap();
    for step in [
        "COPY gate/secret /got",
        "COPY gate /got/",
        "COPY gate/ /got/",
        "COPY direct /got",
        "COPY gate/* /got/",
        "COPY */secret /got/",
        "COPY sub/up/secret /got",
        "COPY ../../../../../../../../../..SECRET /got",
        "COPY --parents gate/./secret /got/",
        "COPY . /all/\nRUN cat /all/gate/secret /all/direct > /got; true",
        "ADD direct /got",
        "ADD archive.tar /got/",
        "RUN --mount=type=bind,source=gate,target=/m cat /m/secret > /got",
        "RUN --mount=type=bind,source=direct,target=/m cat /m > /got",
        "RUN --mount=type=bind,target=/m cat /m/gate/secret /m/direct > /got; true",
    ] {
        world.stays_in(&format!("{}\n", step.replace("SECRET", &outside.join("secret").display().to_string())));
    }
    // A directory given as a further context is none that the first may be left for.
    let named = format!("more={}", at("sub").display());
    world.project.flags(&["--build-context", &named]);
    world.stays_in("COPY --from=more up/secret /got\n");
    world.stays_in("COPY --from=more ../gate/secret /got\n");
}
