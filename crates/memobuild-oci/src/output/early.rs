//! Layers on their way to a registry while those behind them are still being compressed.

use std::{
    collections::BTreeSet,
    sync::mpsc::{Sender, channel},
    thread::{self, JoinHandle},
};

use memobuild_image::Descriptor;
use memobuild_store::Store;

use crate::{
    reference::Reference,
    registry::{Pushed, Registries},
};

/// Sends blobs as they are made. What fails here is sent again, and told, by [`super::Push`], which finds the rest there.
pub struct Early {
    queue: Option<Sender<Descriptor>>,
    worker: Option<JoinHandle<u64>>,
}

impl Early {
    /// Starts a thread that sends to the repositories of these names.
    pub fn start(registries: &Registries, store: &Store, names: &[Reference]) -> Self {
        let place = |name: &Reference| Reference { tag: None, digest: None, ..name.clone() };
        let places: BTreeSet<Reference> = names.iter().map(place).collect();
        let (registries, store) = (registries.clone(), store.clone());
        let (queue, made) = channel::<Descriptor>();
        let work = move || {
            let (mut failed, mut sent) = (false, 0);
            for blob in made {
                let Some(path) = store.oci_blob_path(&blob.digest).filter(|_| !failed) else { continue };
                for place in &places {
                    match registries.push_file(place, &blob, &path) {
                        Ok(pushed) => sent += u64::from(pushed == Pushed::Sent),
                        Err(_) => failed = true,
                    }
                }
            }
            sent
        };
        let worker = thread::Builder::new().name("early-push".into()).spawn(work).ok();
        Self { queue: Some(queue), worker }
    }

    /// A blob is in the store. Comes back at once.
    pub fn offer(&self, blob: &Descriptor) {
        if let Some(queue) = &self.queue {
            // Without the thread all is sent later.
            let _ = queue.send(blob.clone());
        }
    }
}

impl Early {
    /// Waits for what is under way; how many blobs were sent.
    pub fn finish(mut self) -> u64 {
        self.end()
    }

    fn end(&mut self) -> u64 {
        drop(self.queue.take());
        self.worker.take().and_then(|worker| worker.join().ok()).unwrap_or_default()
    }
}

impl Drop for Early {
    /// Waits for what is under way.
    fn drop(&mut self) {
        self.end();
    }
}
