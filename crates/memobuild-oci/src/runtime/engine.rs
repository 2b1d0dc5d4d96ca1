//! Docker's API over its socket, which podman's service speaks as well (docs.docker.com/reference/api/engine).
//!
//! What docker has is not sent again: an image that is there is only named, and the lowest layers of one that is not are
//! left out of the archive. That is sound with docker's own image store, which asks for each layer by its chain ID (the
//! digest of all diff IDs up to it) before it opens the layer's file. With containerd's image store, and with podman,
//! all is sent.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use memobuild_tree::Sha256Digest;
use serde::{Deserialize, de::DeserializeOwned};

use super::{
    Loaded, RuntimeError, RuntimeKind,
    archive::{self, Archive, LoadImage},
    http::{Address, Answer, Client, UploadError, encoded},
};
use crate::image::Progress;

/// How long the daemon may be silent when it is asked something.
const ASK: Duration = Duration::from_secs(30);
/// How long it may be silent while it unpacks an image.
const UNPACK: Duration = Duration::from_secs(30 * 60);
/// The longest answer, in bytes.
const MAX_ANSWER: u64 = 32 << 20;
/// How long may be spent on finding out what is there, before all is sent.
const LOOK: Duration = Duration::from_secs(10);

/// A daemon that answers.
#[derive(Debug)]
pub(super) struct Engine {
    client: Client,
    /// `/v1.41`: the newest version of the API that the daemon has.
    prefix: String,
    pub(super) kind: RuntimeKind,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    #[serde(rename = "RootFS", default)]
    root_fs: RootFs,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RootFs {
    #[serde(default)]
    layers: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Info {
    #[serde(default)]
    driver_status: Option<Vec<Vec<String>>>,
}

#[derive(Deserialize)]
struct Refusal {
    message: String,
}

/// A line of what the daemon tells while it loads.
#[derive(Deserialize)]
struct Told {
    #[serde(default)]
    error: Option<String>,
}

impl Engine {
    /// Asks who is there.
    pub(super) fn connect(address: &Address) -> Result<Self, RuntimeError> {
        let client = Client::new(address.clone());
        let answer = client.call("GET", "/_ping", ASK)?;
        let version = answer.header("api-version").filter(|v| is_version(v)).map(|v| format!("/v{v}"));
        let podman = answer.header("libpod-api-version").is_some();
        let kind = if podman { RuntimeKind::Podman } else { RuntimeKind::Docker };
        let engine = Self { client, prefix: version.unwrap_or_default(), kind };
        engine.accepted(answer, "ping")?;
        Ok(engine)
    }

    pub(super) fn describe(&self) -> String {
        format!("{} at {}", self.kind, self.client.address())
    }

    pub(super) fn load(&self, image: &LoadImage<'_>, progress: Progress<'_>) -> Result<Loaded, RuntimeError> {
        if self.kind == RuntimeKind::Docker && self.keeps_manifests() {
            return self.load_whole(image, progress);
        }
        let id = image.id();
        let layers = image.diff_ids().len();
        if !image.names.is_empty() && self.has(&id)? {
            self.tag(&id, image)?;
            return Ok(Loaded { id, sent: 0, layers_sent: 0, layers_present: layers });
        }
        let present = match self.kind {
            RuntimeKind::Docker => self.layers_present(image.diff_ids()),
            _ => 0,
        };
        let archive = archive::docker(image, present)?;
        let sent = self.send(&archive, progress).and_then(|sent| self.must_have(&id, image).map(|()| sent));
        match sent {
            Ok(sent) => Ok(Loaded { id, sent, layers_sent: archive.layers, layers_present: present }),
            // What was there a moment ago may be gone.
            Err(error) if present > 0 && error.is_runtimes() => {
                tracing::debug!("{error}: sending all layers");
                let archive = archive::docker(image, 0)?;
                let sent = self.send(&archive, progress)?;
                self.must_have(&id, image)?;
                Ok(Loaded { id, sent, layers_sent: archive.layers, layers_present: 0 })
            }
            Err(error) => Err(error),
        }
    }

    /// For docker with containerd's image store, where an image is known by its manifest.
    fn load_whole(&self, image: &LoadImage<'_>, progress: Progress<'_>) -> Result<Loaded, RuntimeError> {
        let manifest = archive::manifest(image)?;
        let id = manifest.root.digest;
        let layers = image.diff_ids().len();
        if !image.names.is_empty() && self.has(&id)? {
            self.tag(&id, image)?;
            return Ok(Loaded { id, sent: 0, layers_sent: 0, layers_present: layers });
        }
        let archive = archive::oci(image, &manifest, &BTreeSet::new())?;
        let sent = self.send(&archive, progress)?;
        self.must_have(&id, image)?;
        Ok(Loaded { id, sent, layers_sent: archive.layers, layers_present: 0 })
    }

    /// Whether images lie in containerd's content store. Who does not say so is taken for one that does: the archive for
    /// it is whole, and can be read by all.
    fn keeps_manifests(&self) -> bool {
        let Ok(info) = self.get::<Info>("/info", "info") else { return true };
        let status = info.driver_status.unwrap_or_default();
        status.iter().any(
            |row| matches!(row.as_slice(), [key, value] if key == "driver-type" && value.starts_with("io.containerd.")),
        )
    }

    fn has(&self, id: &Sha256Digest) -> Result<bool, RuntimeError> {
        let answer = self.client.call("GET", &self.path(&format!("/images/{id}/json")), ASK)?;
        match answer.status {
            404 => Ok(false),
            _ => self.accepted(answer, "inspect").map(|_| true),
        }
    }

    fn must_have(&self, id: &Sha256Digest, image: &LoadImage<'_>) -> Result<(), RuntimeError> {
        if self.has(id)? {
            return Ok(());
        }
        tracing::debug!("{} has no {id} ({})", self.describe(), image.image.name());
        Err(RuntimeError::Lost { runtime: self.describe() })
    }

    fn tag(&self, id: &Sha256Digest, image: &LoadImage<'_>) -> Result<(), RuntimeError> {
        for name in &image.names {
            let repository = format!("{}/{}", name.registry, name.repository);
            let (repository, tag) = (encoded(&repository), encoded(name.tag_or_latest()));
            let path = self.path(&format!("/images/{id}/tag?repo={repository}&tag={tag}"));
            self.accepted(self.client.call("POST", &path, ASK)?, "tag")?;
        }
        Ok(())
    }

    /// How many of the lowest of these layers are there, one on the other: the longest beginning that an image of the
    /// daemon's shares. 0 where it can't be told.
    fn layers_present(&self, wanted: &[Sha256Digest]) -> usize {
        let began = Instant::now();
        let mut most = 0;
        let Ok(images) = self.get::<Vec<Listed>>("/images/json", "images") else { return 0 };
        // An ID that is no digest would be part of a path.
        for image in images.iter().filter(|image| image.id.parse::<Sha256Digest>().is_ok()) {
            if most == wanted.len() || began.elapsed() > LOOK {
                break;
            }
            let Ok(found) = self.get::<Inspected>(&format!("/images/{}/json", image.id), "inspect") else { continue };
            let layers = found.root_fs.layers.unwrap_or_default();
            let same = |(wanted, layer): &(&Sha256Digest, &String)| wanted.to_string() == **layer;
            most = most.max(wanted.iter().zip(&layers).take_while(same).count());
        }
        most
    }

    fn send(&self, archive: &Archive<'_>, progress: Progress<'_>) -> Result<u64, RuntimeError> {
        let mut sent = 0;
        let answer = self.client.upload(&self.path("/images/load?quiet=1"), "application/x-tar", UNPACK, |out| {
            sent = archive.write(out, progress)?;
            Ok(())
        });
        let answer = answer.map_err(|error: UploadError<RuntimeError>| match error {
            UploadError::Client(error) => error.into(),
            UploadError::Body(error) => error,
        })?;
        let told = self.accepted(answer, "load")?;
        match complaint(&told) {
            Some(message) => Err(self.refused("load", message)),
            None => Ok(sent),
        }
    }

    fn path(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }

    fn get<T: DeserializeOwned>(&self, path: &str, what: &str) -> Result<T, RuntimeError> {
        let bytes = self.accepted(self.client.call("GET", &self.path(path), ASK)?, what)?;
        serde_json::from_slice(&bytes).map_err(|e| self.refused(what, e.to_string()))
    }

    /// The answer's body, where it says yes.
    fn accepted(&self, answer: Answer, what: &str) -> Result<Vec<u8>, RuntimeError> {
        let status = answer.status;
        let bytes = answer.bytes(MAX_ANSWER)?;
        if (200..300).contains(&status) {
            return Ok(bytes);
        }
        let message = match serde_json::from_slice::<Refusal>(&bytes) {
            Ok(refusal) => refusal.message,
            Err(_) => format!("status {status}"),
        };
        Err(self.refused(what, message))
    }

    fn refused(&self, what: &str, message: String) -> RuntimeError {
        RuntimeError::Refused { runtime: self.describe(), what: what.into(), message }
    }
}

fn is_version(text: &str) -> bool {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    text.split_once('.').is_some_and(|(major, minor)| digits(major) && digits(minor))
}

/// The error in what the daemon told while it loaded: objects one after the other. The status was sent long before.
fn complaint(told: &[u8]) -> Option<String> {
    let lines = serde_json::Deserializer::from_slice(told).into_iter::<Told>();
    lines.map_while(Result::ok).find_map(|line| line.error)
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
