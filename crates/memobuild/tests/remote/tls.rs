//! A server with an authority of its own, which wants to see certificates.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use crate::{
    common::Place,
    dir, project, summary,
    support::{Built, Project, traced},
    text, warnings,
};

/// Keys and certificates, all by one authority: `ca.pem`, `server.pem`, `client.pem`. `false`, said: there is no OpenSSL.
fn certificates(dir: &Path) -> bool {
    // Without the distribution's settings, which add extensions.
    fs::write(dir.join("config"), "[req]\ndistinguished_name = dn\n[dn]\n").unwrap();
    let make = |name: &str, more: &str| {
        let common = format!(
            "req -x509 -config config -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN={name} \
             -keyout {name}.key -out {name}.pem {more}"
        );
        Command::new("openssl").args(common.split_whitespace()).current_dir(dir).output()
    };
    let Ok(made) = make("ca", "-addext basicConstraints=critical,CA:TRUE") else {
        eprintln!("skipped: openssl is not there");
        return false;
    };
    assert!(made.status.success(), "{}", text(&made.stderr));
    let by = "-CA ca.pem -CAkey ca.key -addext basicConstraints=critical,CA:FALSE";
    for (name, more) in [("server", "-addext subjectAltName=DNS:localhost,IP:127.0.0.1"), ("client", "")] {
        let made = make(name, &format!("{by} {more}")).unwrap();
        assert!(made.status.success(), "{}", text(&made.stderr));
    }
    true
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The server and where it listens, without a scheme.
fn serve(place: &Place) -> (Server, String) {
    let mut child = place
        .command(env!("CARGO_BIN_EXE_memobuild"))
        .args(["server", "--listen", "127.0.0.1:0", "--data-dir", "data", "--tls-cert", "server.pem"])
        .args(["--tls-key", "server.key", "--tls-client-ca", "ca.pem"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    let addr = line.trim().strip_prefix("listening on https://").expect("the address").to_owned();
    std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
    (Server(child), addr)
}

/// A build on a machine whose settings are these.
fn with_settings(project: &Project, machine: &str, settings: &Path) -> Built {
    let mut command = project.build_command(&[]);
    command.env("MEMOBUILD_CACHE_DIR", dir(project, machine)).env("MEMOBUILD_CONFIG", settings);
    let built = Built::of(command.output().unwrap());
    assert!(built.output.status.success(), "{}", text(&built.output.stderr));
    built
}

#[test]
fn own_authorities_and_certificates() {
    if !traced() {
        return;
    }
    let (place, project) = (Place::new(), project());
    let files = place.path("");
    if !certificates(&files) {
        return;
    }
    let (_server, addr) = serve(&place);
    let pair = "[[remote.keypair]]\ncert = \"client.pem\"\nkey = \"client.key\"\n";
    let settings = |name: &str, text: String| {
        fs::write(files.join(name), text).unwrap();
        files.join(name)
    };
    for scheme in ["https", "grpcs"] {
        let url = format!("[remote]\nurl = \"{scheme}://{addr}\"\n");
        let whole = settings(scheme, format!("{url}ca = [\"ca.pem\"]\n{pair}"));
        let machine = |n: &str| format!("{scheme}-{n}");
        let first = with_settings(&project, &machine("one"), &whole);
        assert_eq!((first.runs().len(), warnings(&first)), (4, Vec::new()));
        let second = with_settings(&project, &machine("two"), &whole);
        assert_eq!((second.runs().len(), warnings(&second)), (0, Vec::new()));
        assert!(summary(&second).starts_with(&format!("shared cache {scheme}://{addr}: ")), "{}", summary(&second));

        // An authority that is not known, a certificate that is not shown, a file that is not there: said, and built.
        for (n, (text, why)) in [
            (format!("{url}{pair}").replace("client", "../client"), "client.pem"),
            (url.clone(), "certificate"),
            // In TLS 1.3 the client is through before the server says no, and may meet a closed connection first.
            (format!("{url}ca = [\"ca.pem\"]\n"), "going on without it"),
            (format!("{url}ca = [\"server.key\"]\n"), "there is no certificate in"),
        ]
        .into_iter()
        .enumerate()
        {
            let file = settings(&format!("{scheme}-{n}.toml"), text);
            let built = with_settings(&project, &machine(&format!("bad{n}")), &file);
            let told = warnings(&built);
            assert_eq!(built.runs().len(), 4);
            assert!(told.iter().any(|warning| warning.to_lowercase().contains(why)), "{n}: {told:?}");
        }
    }
}
