//! Provenance: how an image came to be, as an SLSA provenance v1 predicate (<https://slsa.dev/spec/v1.1/provenance>).
//!
//! Where BuildKit has a place for something it is there too, under the same name, so that what reads BuildKit's
//! provenance reads this: `docker buildx imagetools inspect`, policies, scanners. `docs/provenance.md` says what is where.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use memobuild_image::{Descriptor, Platform, json, time};
use memobuild_tree::Sha256Digest;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::purl;

/// By this a statement says that its predicate is SLSA provenance.
pub const PREDICATE_TYPE: &str = "https://slsa.dev/provenance/v1";
/// How the parameters are to be read.
pub const BUILD_TYPE: &str = "https://github.com/memobuild/memobuild/blob/main/docs/provenance.md";

/// How much is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// No values of build arguments and labels, no secrets, steps or sources: safe for any build.
    Min,
    /// All of it.
    #[default]
    Max,
}

/// What went into a build from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Material {
    /// An image: its reference, its platform, and the digest that it was resolved to.
    Image {
        /// As the Dockerfile names it.
        reference: String,
        /// Which of its images.
        platform: Option<Platform>,
        /// Of the manifest or index that the reference names.
        digest: Sha256Digest,
        /// Whether it came from an OCI layout on disk, not from a registry.
        local: bool,
    },
    /// A git repository.
    Git {
        /// Its URL, with the reference after `#`.
        url: String,
        /// The commit, in hexadecimal digits.
        commit: String,
    },
    /// A file from the web.
    Http {
        /// Its URL.
        url: String,
        /// Of its bytes.
        digest: Sha256Digest,
    },
}

/// A secret or SSH agent that steps could use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Credential {
    /// Its id.
    pub id: String,
    /// Whether steps run without it too.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
}

/// Where the build's configuration came from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConfigSource {
    /// For a remote context: its URL.
    pub uri: Option<String>,
    /// For a git context: its commit, in hexadecimal digits.
    pub commit: Option<String>,
    /// The path of the Dockerfile in the context.
    pub path: String,
    /// The Dockerfile's text.
    pub dockerfile: String,
}

/// One step of the build.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Step {
    /// How the build names it: `[build 3/5] RUN make`.
    pub name: String,
    /// What it runs, with arguments; empty for a step that runs nothing.
    pub command: Vec<String>,
    /// The steps whose results it uses, by their place in [`Build::steps`].
    pub inputs: Vec<usize>,
    /// Whether an earlier result was used.
    pub cached: bool,
    /// The lines of the Dockerfile that it comes from, first and last, counted from 1.
    pub lines: Option<(u32, u32)>,
    /// The layers that its result has in the image or its base, lowest first.
    pub layers: Vec<Descriptor>,
}

/// What the build knows of itself.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Build {
    /// Who built: a URL; empty if it is not known.
    pub builder_id: String,
    /// Version of this program.
    pub version: String,
    /// Unique to the build; shared by its platforms.
    pub invocation_id: String,
    /// When it began: seconds since the epoch, and nanoseconds.
    pub started: (i64, u32),
    /// When it ended.
    pub finished: (i64, u32),
    /// What the user set, by BuildKit's names: `build-arg:NAME`, `label:NAME`, `target`, `no-cache`.
    pub args: BTreeMap<String, String>,
    /// Secrets that the build was given.
    pub secrets: Vec<Credential>,
    /// SSH agents that the build was given.
    pub ssh: Vec<Credential>,
    /// Names of the directories that it read: `context`, `dockerfile`, those of `--build-context`.
    pub locals: Vec<String>,
    /// Where the configuration came from.
    pub config_source: ConfigSource,
    /// What went into it.
    pub materials: Vec<Material>,
    /// Its steps, inputs before what uses them.
    pub steps: Vec<Step>,
    /// The machine that built.
    pub builder_platform: Platform,
    /// What the user says of version control: `source`, `revision`.
    pub vcs: BTreeMap<String, String>,
    /// Whether the user says that the result is the same each time, byte for byte.
    pub reproducible: bool,
    /// Whether no step could use the network.
    pub hermetic: bool,
}

impl Build {
    /// The predicate, as compact JSON.
    ///
    /// # Errors
    /// Never in practice: all keys are texts.
    pub fn to_json(&self, mode: Mode) -> serde_json::Result<Vec<u8>> {
        let (request, request_complete) = self.request(mode);
        let mut internal = Map::new();
        internal.insert("builderPlatform".into(), json!(self.builder_platform.to_string()));
        if mode == Mode::Max && !self.steps.is_empty() {
            internal.insert("buildConfig".into(), json!({"steps": self.steps_json()}));
        }
        let version = |v: &str| (!v.is_empty()).then(|| json!({"memobuild": v}));
        let mut builder = Map::new();
        builder.insert("id".into(), json!(self.builder_id));
        builder.extend(version(&self.version).map(|v| ("version".to_owned(), v)));
        json::compact(&json!({
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"configSource": self.config_source(), "request": request},
                "internalParameters": internal,
                "resolvedDependencies": self.dependencies(),
            },
            "runDetails": {
                "builder": builder,
                "metadata": {
                    "invocationId": self.invocation_id,
                    "startedOn": time::rfc3339(self.started.0, self.started.1),
                    "finishedOn": time::rfc3339(self.finished.0, self.finished.1),
                    "buildkit_metadata": self.metadata(mode),
                    "buildkit_hermetic": self.hermetic && self.locals.is_empty(),
                    "buildkit_completeness": {
                        "request": request_complete,
                        // What is in a directory of the user's is not told.
                        "resolvedDependencies": self.locals.is_empty(),
                    },
                    "buildkit_reproducible": self.reproducible,
                },
            },
        }))
    }

    fn config_source(&self) -> Value {
        let source = &self.config_source;
        let mut out = Map::new();
        if let Some(uri) = &source.uri {
            out.insert("uri".into(), json!(redact(uri)));
        }
        // Of a commit, or else of the Dockerfile itself.
        let digest = source.commit.as_deref().map(commit).or_else(|| {
            let digest = Sha256Digest::of(source.dockerfile.as_bytes()).hex();
            (source.uri.is_none() && !source.dockerfile.is_empty()).then(|| json!({"sha256": digest}))
        });
        out.extend(digest.map(|d| ("digest".to_owned(), d)));
        out.insert("path".into(), json!(source.path));
        Value::Object(out)
    }

    /// What was asked for, and whether that is all of it.
    fn request(&self, mode: Mode) -> (Value, bool) {
        let told = |key: &str| mode == Mode::Max || !(key.starts_with("build-arg:") || key.starts_with("label:"));
        let args: BTreeMap<_, _> = self.args.iter().filter(|(key, _)| told(key)).collect();
        let complete = args.len() == self.args.len();
        let mut out = Map::new();
        out.insert("frontend".into(), json!("dockerfile.v0"));
        if !args.is_empty() {
            out.insert("args".into(), json!(args));
        }
        if mode == Mode::Max {
            for (name, credentials) in [("secrets", &self.secrets), ("ssh", &self.ssh)] {
                if !credentials.is_empty() {
                    out.insert(name.into(), json!(credentials));
                }
            }
        }
        if !self.locals.is_empty() {
            out.insert("locals".into(), self.locals.iter().map(|name| json!({"name": name})).collect());
        }
        (Value::Object(out), complete)
    }

    /// Each material once, in a fixed order.
    fn dependencies(&self) -> Vec<Value> {
        let dependency = |material: &Material| match material {
            Material::Image { reference, platform, digest, local } => {
                let url = if *local { purl::layout_image } else { purl::image };
                (url(reference, platform.as_ref()), json!({"sha256": digest.hex()}))
            }
            Material::Git { url, commit: id } => (redact(url), commit(id)),
            Material::Http { url, digest } => (redact(url), json!({"sha256": digest.hex()})),
        };
        let mut all: Vec<(String, Value)> = self.materials.iter().map(dependency).collect();
        all.sort_by(|(a, x), (b, y)| (a, x.to_string()).cmp(&(b, y.to_string())));
        all.dedup();
        all.into_iter().map(|(uri, digest)| json!({"uri": uri, "digest": digest})).collect()
    }

    fn steps_json(&self) -> Vec<Value> {
        let step = |(i, step): (usize, &Step)| {
            let mut out = Map::new();
            out.insert("id".into(), json!(step_id(i)));
            out.insert("name".into(), json!(step.name));
            if !step.command.is_empty() {
                out.insert("command".into(), json!(step.command));
            }
            if !step.inputs.is_empty() {
                // As BuildKit writes them: a step, and which of its outputs.
                let inputs: Vec<_> = step.inputs.iter().map(|i| format!("{}:0", step_id(*i))).collect();
                out.insert("inputs".into(), json!(inputs));
            }
            out.insert("cached".into(), json!(step.cached));
            Value::Object(out)
        };
        self.steps.iter().enumerate().map(step).collect()
    }

    fn metadata(&self, mode: Mode) -> Value {
        let mut out = Map::new();
        if !self.vcs.is_empty() {
            let vcs: BTreeMap<_, _> = self.vcs.iter().map(|(k, v)| (k, redact(v))).collect();
            out.insert("vcs".into(), json!(vcs));
        }
        if mode == Mode::Min {
            return Value::Object(out);
        }
        let source = &self.config_source;
        let (mut locations, mut layers) = (Map::new(), Map::new());
        for (i, step) in self.steps.iter().enumerate() {
            if let Some((first, last)) = step.lines {
                let range = json!({"start": {"line": first}, "end": {"line": last}});
                locations.insert(step_id(i), json!({"locations": [{"ranges": [range]}]}));
            }
            if !step.layers.is_empty() {
                layers.insert(format!("{}:0", step_id(i)), json!([step.layers]));
            }
        }
        if !source.dockerfile.is_empty() {
            let data = STANDARD.encode(&source.dockerfile);
            let info = json!({"filename": source.path, "language": "Dockerfile", "data": data});
            out.insert("source".into(), json!({"locations": locations, "infos": [info]}));
        }
        if !layers.is_empty() {
            out.insert("layers".into(), Value::Object(layers));
        }
        Value::Object(out)
    }
}

fn step_id(i: usize) -> String {
    format!("step{i}")
}

/// Commits are SHA-1, or SHA-256 in repositories of that kind.
fn commit(id: &str) -> Value {
    if id.len() == 64 { json!({"sha256": id}) } else { json!({"sha1": id}) }
}

/// A URL without user and password, which tokens are often given as.
fn redact(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at_checked(end).unwrap_or((rest, ""));
    match authority.rsplit_once('@') {
        // The user of an SSH URL is no secret, and means which server.
        Some((user, host)) if user.contains(':') || !scheme.ends_with("ssh") => {
            let hidden = if user.contains(':') { "xxxxx:xxxxx" } else { "xxxxx" };
            format!("{scheme}://{hidden}@{host}{path}")
        }
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build() -> Build {
        let digest = Sha256Digest::of(b"alpine");
        let platform: Platform = "linux/amd64".parse().unwrap();
        Build {
            builder_id: "https://ci.example.org/run/7".into(),
            version: "0.3.0".into(),
            invocation_id: "abc".into(),
            started: (1_700_000_000, 500_000_000),
            finished: (1_700_000_009, 0),
            args: [("build-arg:TOKEN", "value-1"), ("label:x", "value-2"), ("target", "final")]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into(),
            secrets: vec![Credential { id: "npmrc".into(), optional: true }],
            locals: vec!["context".into(), "dockerfile".into()],
            config_source: ConfigSource {
                path: "Dockerfile".into(),
                dockerfile: "FROM alpine\nRUN make\n".into(),
                ..ConfigSource::default()
            },
            materials: vec![
                Material::Http { url: "https://u:p@example.org/x.tgz".into(), digest },
                Material::Image {
                    reference: "alpine:3".into(),
                    platform: Some(platform.clone()),
                    digest,
                    local: false,
                },
                Material::Image {
                    reference: "alpine:3".into(),
                    platform: Some(platform.clone()),
                    digest,
                    local: false,
                },
                Material::Image { reference: "base:1".into(), platform: None, digest, local: true },
                Material::Git { url: "https://example.org/r.git#v1".into(), commit: "4b22".into() },
            ],
            steps: vec![
                Step { name: "FROM alpine".into(), lines: Some((1, 1)), cached: true, ..Step::default() },
                Step {
                    name: "RUN make".into(),
                    command: vec!["/bin/sh".into(), "-c".into(), "make".into()],
                    inputs: vec![0],
                    lines: Some((2, 2)),
                    layers: vec![Descriptor::of("x", b"layer")],
                    ..Step::default()
                },
            ],
            builder_platform: platform,
            ..Build::default()
        }
    }

    fn json_of(mode: Mode) -> Value {
        serde_json::from_slice(&build().to_json(mode).unwrap()).unwrap()
    }

    #[test]
    fn all_is_told_in_max() {
        let json = json_of(Mode::Max);
        let definition = &json["buildDefinition"];
        assert_eq!(definition["externalParameters"]["request"]["args"]["build-arg:TOKEN"], "value-1");
        assert_eq!(definition["externalParameters"]["request"]["secrets"], json!([{"id": "npmrc", "optional": true}]));
        let steps = &definition["internalParameters"]["buildConfig"]["steps"];
        assert_eq!(steps[1]["inputs"], json!(["step0:0"]));
        assert_eq!(steps[0]["cached"], true);
        let uris: Vec<_> =
            definition["resolvedDependencies"].as_array().unwrap().iter().map(|d| d["uri"].as_str().unwrap()).collect();
        assert_eq!(
            uris,
            [
                "https://example.org/r.git#v1",
                "https://xxxxx:xxxxx@example.org/x.tgz",
                "pkg:docker/alpine@3?platform=linux%2Famd64",
                "pkg:oci/base@1",
            ]
        );
        assert_eq!(definition["resolvedDependencies"][0]["digest"], json!({"sha1": "4b22"}));
        let metadata = &json["runDetails"]["metadata"];
        assert_eq!(metadata["startedOn"], "2023-11-14T22:13:20.5Z");
        assert_eq!(metadata["buildkit_completeness"], json!({"request": true, "resolvedDependencies": false}));
        let source = &metadata["buildkit_metadata"]["source"];
        assert_eq!(source["infos"][0]["data"], STANDARD.encode("FROM alpine\nRUN make\n"));
        assert_eq!(source["locations"]["step1"]["locations"][0]["ranges"][0]["start"]["line"], 2);
        assert_eq!(metadata["buildkit_metadata"]["layers"]["step1:0"][0][0]["size"], 5);
    }

    #[test]
    fn nothing_private_is_told_in_min() {
        let bytes = build().to_json(Mode::Min).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        for private in ["value-1", "value-2", "TOKEN", "npmrc", "make", &STANDARD.encode("FROM alpine"), "u:p"] {
            assert!(!text.contains(private), "{private} is in {text}");
        }
        let json = json_of(Mode::Min);
        assert_eq!(json["buildDefinition"]["externalParameters"]["request"]["args"], json!({"target": "final"}));
        assert_eq!(json["runDetails"]["metadata"]["buildkit_completeness"]["request"], false);
        let digest = Sha256Digest::of(b"FROM alpine\nRUN make\n").hex();
        assert_eq!(json["buildDefinition"]["externalParameters"]["configSource"]["digest"]["sha256"], digest);
    }

    #[test]
    fn credentials_are_hidden() {
        assert_eq!(redact("https://token@x.org/a"), "https://xxxxx@x.org/a");
        assert_eq!(redact("https://a:b@x.org"), "https://xxxxx:xxxxx@x.org");
        assert_eq!(redact("ssh://git@x.org/a"), "ssh://git@x.org/a");
        assert_eq!(redact("git@x.org:a"), "git@x.org:a");
        assert_eq!(redact("https://x.org/a@b"), "https://x.org/a@b");
    }
}
