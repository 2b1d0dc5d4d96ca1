//! A step without a network reaches nothing that listens on the machine.

use std::{
    net::TcpListener,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener},
    },
};

use super::{Test, World};

pub const TESTS: &[(&str, Test)] = &[("without_a_network", without_a_network)];

fn without_a_network(world: &mut World) {
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let name = format!("memobuild-escape-{}", std::process::id());
    let _listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let number = port.local_addr().unwrap().port();
    let attempts =
        |outcome| [(format!("connect-port={number}"), outcome), (format!("connect-abstract={name}"), outcome)];
    world.tries("RUN --network=none /probe", &attempts("ECONNREFUSED|ENETUNREACH"));
    // With the machine's network, which is the default, it does: this is what is taken away.
    world.tries("RUN /probe", &attempts("done"));
}
