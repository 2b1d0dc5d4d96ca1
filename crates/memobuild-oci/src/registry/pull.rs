//! Manifests and blobs from a registry.

use std::io::{self, Read, Write};

use memobuild_image::{Descriptor, media};
use memobuild_store::Store;
use memobuild_tree::Sha256Digest;

use super::{FetchedManifest, RegistryError, artifact::content_type, client::Target, exchange::io_error};

/// The longest manifest, index or config that is read (distribution-spec asks for at least 4 MiB).
pub(super) const MAX_DOCUMENT: u64 = 8 << 20;
/// What is asked for when a manifest is wanted.
const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

impl Target<'_> {
    pub(super) fn manifest(
        &self,
        wanted: &str,
        digest: Option<Sha256Digest>,
    ) -> Result<FetchedManifest, RegistryError> {
        self.again(|| self.manifest_once(wanted, digest)).map(|(manifest, _)| manifest)
    }

    /// With its `ETag`, by which the registry knows this version of what has a tag.
    pub(super) fn manifest_once(
        &self,
        wanted: &str,
        digest: Option<Sha256Digest>,
    ) -> Result<(FetchedManifest, Option<String>), RegistryError> {
        let mut response = self.get(&format!("manifests/{wanted}"), &[("accept", ACCEPT)], wanted)?;
        let declared = content_type(response.headers()).to_owned();
        let bytes = self.read(&mut response, MAX_DOCUMENT)?;
        let bytes = bytes.ok_or_else(|| self.protocol(format!("the manifest {wanted} is over 8 MiB")))?;
        let actual = Sha256Digest::of(&bytes);
        match digest {
            Some(expected) => self.verify(expected, &bytes)?,
            None => self.same_digest(response.headers(), actual, bytes.len())?,
        }
        let value: serde_json::Value = serde_json::from_slice(&bytes)
            .map_err(|e| self.protocol(format!("the manifest {wanted} is not JSON: {e}")))?;
        let own = value.get("mediaType").and_then(|m| m.as_str()).unwrap_or_default();
        // Of other types that are declared, such as plain JSON, the document knows better.
        let known = |t: &str| media::is_index(t) || media::is_manifest(t);
        if known(&declared) && !own.is_empty() && own != declared {
            return Err(
                self.protocol(format!("the manifest {wanted} is sent as {declared}, and says that it is {own}"))
            );
        }
        let media_type = if own.is_empty() { declared } else { own.to_owned() };
        if media::DOCKER_MANIFEST_V1.contains(&media_type.as_str()) || value.get("fsLayers").is_some() {
            return Err(
                self.protocol("the image has a manifest of Docker's schema 1, which nothing writes since 2017".into())
            );
        }
        let etag = response.headers().get("etag").and_then(|v| v.to_str().ok()).map(str::to_owned);
        Ok((FetchedManifest { bytes, media_type, digest: actual }, etag))
    }

    pub(super) fn blob(
        &self,
        blob: &Descriptor,
        store: &Store,
        progress: &(dyn Fn(u64, Option<u64>) + Sync),
    ) -> Result<(), RegistryError> {
        if store.oci_blob_path(&blob.digest).is_some() {
            return Ok(());
        }
        let Some(mut partial) = store.partial(&blob.digest)? else { return Ok(()) };
        let mut backoff = super::patience();
        if partial.offset() > blob.size {
            partial.restart()?;
        }
        while partial.offset() < blob.size {
            let before = partial.offset();
            let result = self.blob_once(blob, &mut partial, progress);
            if partial.offset() > before {
                backoff.progress();
            }
            match result {
                Ok(()) if partial.offset() > before => {}
                Ok(()) if backoff.again(None) => {}
                Ok(()) => {
                    return Err(
                        self.protocol(format!("{}: the registry sends fewer bytes than it announced", blob.digest))
                    );
                }
                // It can't begin there: from the start, then.
                Err(RegistryError::Status { status: 416, .. }) if before > 0 && backoff.again(None) => {
                    partial.restart()?;
                }
                Err(e) if e.is_transient() && backoff.again(e.wish()) => {
                    tracing::debug!("{}: going on at byte {}: {e}", blob.digest, partial.offset());
                }
                Err(e) => return Err(e.after(backoff.attempt())),
            }
        }
        partial.finish().map(drop).map_err(|e| match e {
            memobuild_store::StoreError::DigestMismatch { expected, actual, size } => RegistryError::DigestMismatch {
                registry: self.registry.into(),
                repository: self.repository.to_string(),
                expected,
                actual,
                size,
            },
            other => other.into(),
        })
    }

    fn blob_once(
        &self,
        blob: &Descriptor,
        partial: &mut memobuild_store::Partial,
        progress: &(dyn Fn(u64, Option<u64>) + Sync),
    ) -> Result<(), RegistryError> {
        let range = format!("bytes={}-", partial.offset());
        // No packing on the way: the range counts the blob's own bytes.
        let mut headers = vec![("accept-encoding", "identity")];
        if partial.offset() > 0 {
            headers.push(("range", &range));
        }
        let mut response = self.get(&format!("blobs/{}", blob.digest), &headers, &blob.digest.to_string())?;
        if partial.offset() > 0 {
            let start = response.headers().get("content-range").and_then(|v| v.to_str().ok());
            let goes_on = start.is_some_and(|s| s.starts_with(&format!("bytes {}-", partial.offset())));
            if response.status() != 206 || !goes_on {
                partial.restart()?;
            }
        }
        let mut reader = response.body_mut().as_reader();
        let mut buffer = vec![0; 128 * 1024];
        loop {
            let count = match reader.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(self.transport(io_error(e))),
            };
            if partial.offset() + count as u64 > blob.size {
                let what = format!("{}: the registry sends more bytes than it announced", blob.digest);
                partial.restart()?;
                return Err(self.protocol(what));
            }
            let written = partial.write_all(buffer.get(..count).unwrap_or_default());
            written.map_err(memobuild_store::StoreError::io("write the download of", blob.digest.hex()))?;
            progress(partial.offset(), Some(blob.size));
        }
    }
}
