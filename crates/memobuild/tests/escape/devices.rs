//! Device nodes of a step's own. They can be made, so that they can be put into an image; they can't be opened, wherever
//! they are made.

use super::{Test, World};
use crate::images::Tar;

pub const TESTS: &[(&str, Test)] = &[
    ("nodes_in_the_image", nodes_in_the_image),
    ("nodes_in_mounts", nodes_in_mounts),
    ("nodes_that_an_image_brings", nodes_that_an_image_brings),
    ("nodes_among_the_kernels_own", nodes_among_the_kernels_own),
    ("no_other_devices", no_other_devices),
];

/// Not allowed to open it, not allowed to make it, or a stand-in was made that no driver is behind.
const REFUSED: &str = "EACCES|EPERM|ENXIO";

fn nodes_in_the_image(world: &mut World) {
    world.tries(
        "RUN mkdir /own && /probe",
        &[("device-in=/tmp", REFUSED), ("device-in=/own", REFUSED), ("device-in=/etc", REFUSED)],
    );
}

fn nodes_in_mounts(world: &mut World) {
    let mounts = "--mount=type=cache,target=/kept --mount=type=tmpfs,target=/brief --mount=type=bind,target=/bound,rw";
    let places = [("device-in=/kept", REFUSED), ("device-in=/brief", REFUSED), ("device-in=/bound", REFUSED)];
    world.tries(&format!("RUN {mounts} /probe"), &places);
}

/// An archive may hold them, and what is unpacked may be mounted.
fn nodes_that_an_image_brings(world: &mut World) {
    let archive = Tar::default().entry(b'3', "node", "", 0o666, (1, 11), b"").file("file", b"").finish();
    std::fs::write(world.project.place.path("nodes.tar"), archive).unwrap();
    // Who can make none does not get it, or a stand-in.
    let refused = format!("{REFUSED}|ENOENT");
    let stage = "FROM scratch AS nodes\nADD nodes.tar /\nFROM base\n";
    for mount in
        ["type=bind,from=nodes,target=/m", "type=bind,from=nodes,target=/m,rw", "type=cache,from=nodes,target=/m"]
    {
        let step = format!("{stage}RUN --mount={mount} test -e /m/file && /probe");
        world.tries(&step, &[("open-write=/m/node", &*refused)]);
    }
    world.tries(&format!("{stage}COPY --from=nodes /node /node\nRUN /probe"), &[("open-write=/node", &*refused)]);
}

fn nodes_among_the_kernels_own(world: &mut World) {
    world.tries("RUN /probe", &[("device-in=/dev", REFUSED), ("device-in=/dev/shm", REFUSED)]);
}

fn no_other_devices(world: &mut World) {
    world.project.dockerfile("RUN ls /dev | sort | tr '\\n' ' ' > /tmp/said; find /dev -type b >> /tmp/said\n");
    assert!(world.built().status.success());
    let mut expected = "core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero ".to_owned();
    let said = world.project.place.read("../out/tmp/said");
    if !said.contains("mqueue") {
        // This kernel has no message queues.
        expected = expected.replace("mqueue ", "");
    }
    assert_eq!(said, expected);
}
