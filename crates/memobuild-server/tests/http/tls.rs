//! TLS and mutual TLS, with OpenSSL's certificates and curl as a client.

use std::{
    fs,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use memobuild_server::{Scope, TlsFiles, add_token};
use serde_json::Value;

use crate::client::{Running, connect, noise};

/// A directory of keys and certificates.
struct Pki(tempfile::TempDir);

impl Pki {
    /// `None`, and says so, where a tool is not there.
    fn new() -> Option<Self> {
        for tool in ["openssl", "curl"] {
            let there = Command::new(tool).arg("version").stdout(Stdio::null()).stderr(Stdio::null()).status();
            if there.is_err() {
                eprintln!("skipped: {tool} is not there");
                return None;
            }
        }
        let pki = Self(tempfile::tempdir().unwrap());
        // Without the distribution's settings, which add extensions.
        fs::write(pki.path("config"), "[req]\ndistinguished_name = dn\n[dn]\n").unwrap();
        Some(pki)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn make(&self, name: &str, subject: &str, extra: &[&str]) {
        let out = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-config",
                "config",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
            ])
            .args(["-days", "2", "-subj", subject, "-keyout", &format!("{name}.key"), "-out", &format!("{name}.crt")])
            .args(extra)
            .current_dir(self.0.path())
            .output()
            .unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }

    /// An authority.
    fn authority(&self, name: &str) {
        self.make(name, &format!("/CN={name}"), &["-addext", "basicConstraints=critical,CA:TRUE"]);
    }

    /// A certificate by an authority.
    fn issue(&self, by: &str, name: &str, subject: &str, extra: &[&str]) {
        let (cert, key) = (format!("{by}.crt"), format!("{by}.key"));
        let by = ["-CA", &cert, "-CAkey", &key, "-addext", "basicConstraints=critical,CA:FALSE"];
        self.make(name, subject, &[&by, extra].concat());
    }

    /// The server's.
    fn server(&self, by: &str, name: &str) {
        self.issue(by, name, "/CN=cache", &["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]);
    }

    fn files(&self, name: &str, client_ca: Option<&str>) -> TlsFiles {
        TlsFiles {
            cert: self.path(&format!("{name}.crt")),
            key: self.path(&format!("{name}.key")),
            client_ca: client_ca.map(|ca| self.path(&format!("{ca}.crt"))),
            client_scope: Scope::Write,
        }
    }

    /// curl, which trusts this authority; what it wrote, and `%{http_code}` behind it.
    fn curl(&self, ca: &str, server: &Running, path: &str, args: &[&str]) -> Output {
        Command::new("curl")
            .args(["-sS", "--noproxy", "*", "--max-time", "60", "-w", "\n%{http_code}"])
            .args(["--cacert", &format!("{ca}.crt")])
            .args(args)
            .arg(format!("https://127.0.0.1:{}{path}", server.addr.port()))
            .current_dir(self.0.path())
            .output()
            .unwrap()
    }
}

/// The status that curl got.
fn status(out: &Output) -> String {
    let text = String::from_utf8_lossy(&out.stdout);
    text.rsplit('\n').next().unwrap_or_default().to_owned()
}

fn audit(path: &Path) -> Vec<Value> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn curl_stores_and_gets_by_https() {
    let Some(pki) = Pki::new() else { return };
    pki.authority("ca");
    pki.server("ca", "server");
    let server = Running::with(|config| config.security.tls = Some(pki.files("server", None)));
    let bytes = noise(1, 3_000_000);
    fs::write(pki.path("blob"), &bytes).unwrap();
    let path = format!("/cache/{}", blake3::hash(&bytes).to_hex());
    let put = pki.curl("ca", &server, &path, &["-T", "blob"]);
    assert_eq!(status(&put), "201", "{put:?}");
    assert_eq!(status(&pki.curl("ca", &server, &path, &["-o", "got"])), "200");
    assert!(fs::read(pki.path("got")).unwrap() == bytes);
    // Whoever does not know the authority does not talk to it.
    pki.authority("other");
    assert_eq!(pki.curl("other", &server, "/healthz", &[]).status.code(), Some(60));
    // Nor does it talk to those who are too old, or don't encrypt.
    let old = pki.curl("ca", &server, "/healthz", &["--tls-max", "1.1", "--ciphers", "DEFAULT@SECLEVEL=0"]);
    assert!(!old.status.success());
    let mut plain = connect(server.addr);
    plain.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!String::from_utf8_lossy(&answer).contains("HTTP/1.1 200"));
    // Which protocol follows is agreed on (ALPN).
    let agreed = pki.curl("ca", &server, "/healthz", &["--http1.1", "-v"]);
    assert_eq!(status(&agreed), "200");
    let text = String::from_utf8_lossy(&agreed.stderr).to_lowercase();
    assert!(text.contains("alpn") && text.contains("accepted"), "{text}");
    let metrics = pki.curl("ca", &server, "/metrics", &[]);
    let text = String::from_utf8_lossy(&metrics.stdout);
    assert!(!text.contains("memobuild_tls_handshake_failures_total 0\n"), "{text}");
}

#[test]
fn a_certificate_says_who_the_client_is() {
    let Some(pki) = Pki::new() else { return };
    pki.authority("ca");
    pki.authority("people");
    pki.authority("strangers");
    pki.server("ca", "server");
    pki.issue("people", "laptop", "/O=Example/CN=anna's laptop", &[]);
    pki.issue("people", "runner", "/O=Example", &["-addext", "subjectAltName=DNS:runner-7.example"]);
    pki.issue("strangers", "stranger", "/CN=anna's laptop", &[]);
    let (log, tokens) = (pki.path("audit"), pki.path("tokens"));
    let admin = format!("Authorization: Bearer {}", add_token(&tokens, "ops", Scope::Admin).unwrap());
    let server = Running::with(|config| {
        config.security.tls = Some(pki.files("server", Some("people")));
        config.security.audit_log = Some(log.clone());
        config.tokens = Some(tokens);
    });
    fs::write(pki.path("blob"), "x").unwrap();
    let path = format!("/cache/{}", blake3::hash(b"x").to_hex());
    let with = |name: &str| ["--cert".to_owned(), format!("{name}.crt"), "--key".to_owned(), format!("{name}.key")];
    let curl = |name: &str, path: &str, args: &[&str]| {
        let identity = with(name);
        let all: Vec<&str> = identity.iter().map(String::as_str).chain(args.iter().copied()).collect();
        pki.curl("ca", &server, path, &all)
    };
    assert_eq!(status(&curl("laptop", &path, &["-T", "blob"])), "201");
    assert_eq!(status(&curl("runner", &path, &["-T", "blob"])), "200");
    // Its scope is write.
    assert_eq!(status(&curl("laptop", "/gc", &["-X", "POST"])), "403");
    assert_eq!(status(&curl("laptop", "/gc", &["-X", "POST", "-H", &admin])), "200");
    assert_eq!(status(&curl("laptop", &path, &["-H", "Authorization: Bearer mb_0"])), "401");
    // None, or another authority's with the same name.
    assert_eq!(status(&pki.curl("ca", &server, &path, &[])), "000");
    assert_eq!(status(&curl("stranger", &path, &[])), "000");

    let lines = audit(&log);
    let who: Vec<_> =
        lines.iter().map(|l| (l["event"].as_str().unwrap(), l["client"].as_str(), l["auth"].as_str())).collect();
    assert_eq!(
        who,
        [
            ("change", Some("anna's laptop"), Some("certificate")),
            ("change", Some("runner-7.example"), Some("certificate")),
            ("refusal", Some("anna's laptop"), Some("certificate")),
            ("gc", Some("ops"), Some("token")),
            ("refusal", None, Some("unknown")),
            ("refusal", None, None),
            ("refusal", None, None),
        ]
    );
    assert_eq!(lines[6]["address"], "127.0.0.1");
}

#[test]
fn certificates_are_changed_while_it_runs() {
    let Some(pki) = Pki::new() else { return };
    pki.authority("old");
    pki.authority("new");
    pki.server("old", "server");
    let server = Running::with(|config| config.security.tls = Some(pki.files("server", None)));
    assert_eq!(status(&pki.curl("old", &server, "/healthz", &[])), "200");
    pki.server("new", "server");
    assert_eq!(status(&pki.curl("old", &server, "/healthz", &[])), "200");
    server.reloader.reload().unwrap();
    assert_eq!(status(&pki.curl("new", &server, "/healthz", &[])), "200");
    assert_eq!(status(&pki.curl("old", &server, "/healthz", &[])), "000");
    // A key that is not the certificate's, half a file, none: it goes on with what it has.
    let key = fs::read(pki.path("server.key")).unwrap();
    for broken in [fs::read(pki.path("old.key")).unwrap(), key[..key.len() / 2].to_vec(), Vec::new()] {
        fs::write(pki.path("server.key"), broken).unwrap();
        assert!(server.reloader.reload().is_err());
        assert_eq!(status(&pki.curl("new", &server, "/healthz", &[])), "200");
    }
}

#[test]
fn a_handshake_that_does_not_go_on_is_ended() {
    let Some(pki) = Pki::new() else { return };
    pki.authority("ca");
    pki.server("ca", "server");
    let server = Running::with(|config| {
        config.security.tls = Some(pki.files("server", None));
        config.idle_timeout = Duration::from_millis(700);
    });
    let began = Instant::now();
    for sent in [&b""[..], b"\x16\x03\x01\x02\x00"] {
        let mut stream = connect(server.addr);
        stream.write_all(sent).unwrap();
        // Others are served meanwhile.
        assert_eq!(status(&pki.curl("ca", &server, "/healthz", &[])), "200");
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    }
    assert!(began.elapsed() < Duration::from_secs(40));
}
