//! Layers on their way to a registry while those behind them are still being compressed.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Sender, channel},
    },
    thread::{self, JoinHandle},
};

use memobuild_image::Descriptor;
use memobuild_observe::in_same_span;
use memobuild_store::Store;

use super::AT_ONCE;
use crate::{
    reference::Reference,
    registry::{Pushed, Registries},
};

/// Sends blobs as they are made. What fails here is sent again, and told, by [`super::Push`], which finds the rest there.
pub struct Early {
    queue: Option<Sender<Descriptor>>,
    workers: Vec<JoinHandle<u64>>,
}

impl Early {
    /// Starts threads that send to the repositories of these names.
    pub fn start(registries: &Registries, store: &Store, names: &[Reference]) -> Self {
        let place = |name: &Reference| Reference { tag: None, digest: None, ..name.clone() };
        let places: BTreeSet<Reference> = names.iter().map(place).collect();
        let (queue, made) = channel::<Descriptor>();
        let made = Arc::new(Mutex::new(made));
        let work = || {
            let (registries, store, places, made) = (registries.clone(), store.clone(), places.clone(), made.clone());
            move || {
                let (mut failed, mut sent) = (false, 0);
                let next = || made.lock().unwrap_or_else(PoisonError::into_inner).recv();
                while let Ok(blob) = next() {
                    for place in &places {
                        if failed {
                            break;
                        }
                        match store.oci_blob_path(&blob.digest) {
                            Some(path) => match registries.push_file(place, &blob, &path) {
                                Ok(pushed) => sent += u64::from(pushed == Pushed::Sent),
                                Err(_) => failed = true,
                            },
                            // It is made only if it is not there.
                            None => failed |= registries.probe_blob(place, &blob.digest).is_err(),
                        }
                    }
                }
                sent
            }
        };
        let spawn = |_| thread::Builder::new().name("early-push".into()).spawn(in_same_span(work())).ok();
        Self { queue: Some(queue), workers: (0..AT_ONCE).filter_map(spawn).collect() }
    }

    /// A layer that the image will have; it is sent if its blob is in the store. Comes back at once.
    pub fn offer(&self, blob: &Descriptor) {
        if let Some(queue) = &self.queue {
            // Without threads all is sent later.
            let _ = queue.send(blob.clone());
        }
    }

    /// Waits for what is under way; how many blobs were sent.
    pub fn finish(mut self) -> u64 {
        self.end()
    }

    fn end(&mut self) -> u64 {
        drop(self.queue.take());
        self.workers.drain(..).filter_map(|worker| worker.join().ok()).sum()
    }
}

impl Drop for Early {
    /// Waits for what is under way.
    fn drop(&mut self) {
        self.end();
    }
}
