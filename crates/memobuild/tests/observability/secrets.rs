//! Secrets and tokens are in nothing that is written or sent, however much is logged.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::Value;

use crate::{
    collector::Collector,
    common::{Place, text},
    server::Server,
    support::{Project, has_busybox},
};

/// Made up; each part of it is found nowhere else.
const FILE: &str = "pX7qLw2ZvK9mTr4Ybn8Hd3Jc6Gf1Sa5QeUiOoWxRtyPlk";
const VARIABLE: &str = "mN4vBx8cZl2kJh7gFd1sAq9wEr5tYu3iOpQwErTyUiOpL";
const HEADER: &str = "Rt6yUi1oPl3kJh8gFd2sAz7xCv4bNm9qWe5rTyUiOpAsD";

/// What a step prints, and what it leaves in a file: to be found, or the search finds nothing at all.
const PRINTED: &str = "printed-9f3a6c1e7b2d";
const PLANTED: &str = "planted-4e8b1d7a2c9f";

/// Bytes of a secret that are enough to know it by. Dumps of requests have rows of 16 bytes.
const PART: usize = 12;

const DOCKERFILE: &str = "\
FROM base
COPY planted /planted
RUN --mount=type=secret,id=file --mount=type=secret,id=variable,env=VARIABLE \
  wc -c < /run/secrets/file > /size; test -n \"$VARIABLE\"; echo $PRINTED printed-9f3a6c1e7b2d
";

/// Everything that was written or sent, by where it was found.
#[derive(Default)]
struct Written(Vec<(String, Vec<u8>)>);

impl Written {
    fn add(&mut self, place: &str, bytes: &[u8]) {
        self.0.push((place.to_owned(), bytes.to_vec()));
    }

    fn output(&mut self, name: &str, output: &Output) {
        self.add(&format!("stdout of {name}"), &output.stdout);
        self.add(&format!("stderr of {name}"), &output.stderr);
        // What steps print is told in base64.
        let stderr = text(&output.stderr);
        let printed = stderr.lines().filter_map(|line| {
            let event: Value = serde_json::from_str(line).ok()?;
            BASE64_STANDARD.decode(event["data"].as_str()?).ok()
        });
        self.add(&format!("output of steps of {name}"), &printed.flatten().collect::<Vec<u8>>());
    }

    /// All files in and below a directory.
    fn files(&mut self, dir: &Path) {
        for entry in fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                self.files(&entry.path());
            } else if kind.is_file() {
                self.add(&entry.path().display().to_string(), &fs::read(entry.path()).unwrap());
            }
        }
    }

    /// Where this stands, as it is.
    fn places_of(&self, text: &str) -> Vec<&str> {
        let all = self.0.iter().filter(|(_, bytes)| contains(bytes, text.as_bytes()));
        all.map(|(place, _)| place.as_str()).collect()
    }

    /// Where any part of a secret stands, or the secret in another form.
    fn traces_of(&self, secret: &str) -> Vec<&str> {
        let mut forms: Vec<Vec<u8>> = secret.as_bytes().windows(PART).map(<[u8]>::to_vec).collect();
        forms.push(secret.bytes().map(|b| format!("{b:02x}")).collect::<String>().into_bytes());
        // By what stands in front of it, base64 has three forms of a text. The edges hang on what is beside it.
        for before in 0..3 {
            let coded = BASE64_STANDARD.encode([&vec![b'x'; before], secret.as_bytes()].concat());
            forms.push(coded.as_bytes()[4..coded.len() - 4].to_vec());
        }
        let has_one = |bytes: &[u8]| contains_any(bytes, &forms);
        self.0.iter().filter(|(_, bytes)| has_one(bytes)).map(|(place, _)| place.as_str()).collect()
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    contains_any(bytes, &[part.to_vec()])
}

/// In one pass, which most bytes are no more than looked at in: there are many, and many parts.
fn contains_any(bytes: &[u8], parts: &[Vec<u8>]) -> bool {
    let start = |bytes: &[u8]| usize::from(bytes[0]) << 8 | usize::from(bytes[1]);
    let mut starts = vec![false; 1 << 16];
    parts.iter().for_each(|part| starts[start(part)] = true);
    let mut places = bytes.windows(2).enumerate().filter(|(_, two)| starts[start(two)]);
    places.any(|(at, _)| parts.iter().any(|part| bytes[at..].starts_with(part)))
}

#[test]
fn the_search_finds_what_it_is_to_find() {
    let row = "POST / 4175 7468 ..Bearer pX7qLw2ZvK9mTr\n2047 Ybn8Hd3Jc6Gf1Sa5";
    let coded = BASE64_STANDARD.encode(format!("me:{FILE}"));
    let hex: String = FILE.bytes().map(|b| format!("{b:02x}")).collect();
    for found in [format!("a{FILE}b"), row.to_owned(), format!("Basic {coded}"), hex] {
        let mut written = Written::default();
        written.add("here", found.as_bytes());
        assert_eq!(written.traces_of(FILE), ["here"], "{found}");
        assert!(written.traces_of(VARIABLE).is_empty());
    }
    let mut written = Written::default();
    written.add("here", PRINTED.as_bytes());
    assert!(written.traces_of(FILE).is_empty() && written.places_of(PRINTED) == ["here"]);
}

/// memobuild with all its logs on, a token, and secrets.
fn loud(project: &Project, args: &[&str], token: &str, server: &Server, collector: &Collector) -> Command {
    let mut command = project.command(args);
    command
        .env("RUST_LOG", "trace")
        .env("MEMOBUILD_JSON_LOGS", "1")
        .env("MEMOBUILD_TOKEN", token)
        .env("MEMOBUILD_REMOTE_URL", format!("http://{}", server.addr))
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url)
        .env("OTEL_EXPORTER_OTLP_HEADERS", format!("authorization=Bearer%20{HEADER}"))
        .env("THE_VARIABLE", VARIABLE);
    command
}

#[test]
fn secrets_and_tokens_are_in_nothing_that_is_written() {
    if !has_busybox() || !Place::new().memobuild(&["doctor"]).status.success() {
        println!("skipped: needs a machine that runs steps");
        return;
    }
    let collector = Collector::start();
    let served = Place::new();
    let token = served.stdout(&["server", "token", "add", "ci", "--tokens", "tokens", "--scope", "write"]);
    let token = token.trim();
    let server = Server::start(served, "trace", &["--tokens", "tokens"]);
    let project = Project::new(DOCKERFILE, &[("planted", PLANTED)]);
    fs::write(project.place.path("../secret"), FILE).unwrap();

    let mut written = Written::default();
    let base = format!("base=oci-layout://{}", project.base().display());
    let build = [
        "build",
        "--progress=rawjson",
        "--build-context",
        &base,
        "--trace-file=../trace.json",
        "--secret=id=file,src=../secret",
        "--secret=id=variable,env=THE_VARIABLE",
        "--provenance=max",
        "--tag=app",
        ".",
    ];
    let run = |args: &[&str]| loud(&project, args, token, &server, &collector).output().unwrap();
    let good = run(&build);
    assert!(good.status.success(), "{}", text(&good.stderr));
    written.output("the build", &good);
    written.add("the trace file", &fs::read(project.place.path("../trace.json")).unwrap());
    // One that fails while it has them.
    project.replace("; echo $PRINTED", "; exit 3; echo $PRINTED");
    let bad = run(&build);
    assert_eq!(bad.status.code(), Some(1), "{}", text(&bad.stderr));
    written.output("the build that fails", &bad);
    written.add("the second trace file", &fs::read(project.place.path("../trace.json")).unwrap());
    for args in [
        &["history", "--json"][..],
        &["history", "show", "--json"],
        &["history", "export", "--format", "json"],
        &["history", "export", "--format", "csv"],
        &["explain-cache", "--json"],
    ] {
        written.output(&args.join(" "), &run(args));
    }
    let requests = collector.requests();
    assert_eq!(requests.len(), 2);
    for (head, body) in requests {
        // It goes where it belongs.
        assert!(head.contains(HEADER), "{head}");
        written.add("spans", &body);
    }
    let (served, lines) = server.stop();
    written.add("the server's log", lines.join("\n").as_bytes());
    written.add("the audit log", served.read("audit").as_bytes());
    written.files(&served.path("data"));
    written.files(&project.cache());

    // All of that was written, and can be searched.
    let cache = project.cache().display().to_string();
    let planted = written.places_of(PLANTED);
    assert!(planted.iter().any(|place| place.starts_with(&cache)), "{planted:?}");
    assert!(written.places_of(PRINTED).contains(&"output of steps of the build"));
    let steps = written.places_of("/run/secrets/file");
    for place in [
        "stderr of the build",
        "stderr of the build that fails",
        "the trace file",
        "spans",
        "stdout of history export --format json",
        "stdout of explain-cache --json",
    ] {
        assert!(steps.contains(&place), "{place}: {steps:?}");
    }
    let log = "\"message\":\"step done\"";
    assert!(written.places_of(log).contains(&"stderr of the build"));
    assert!(written.places_of("\"path\":\"/build-event\"").contains(&"the server's log"));
    assert!(written.places_of("\"client\":\"ci\"").contains(&"the audit log"));
    // The finest lines of the HTTP client would hold the token.
    assert!(written.places_of("\"target\":\"ureq::run\"").contains(&"stderr of the build"));

    for (what, secret) in [("file", FILE), ("variable", VARIABLE), ("header", HEADER), ("token", token)] {
        assert!(secret.len() >= 2 * PART + 4, "{what} is too short to be looked for");
        let found = written.traces_of(secret);
        assert!(found.is_empty(), "the {what} is in {found:?}");
    }
}
