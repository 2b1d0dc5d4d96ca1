//! Registries: pulls over the OCI distribution API.
#![allow(missing_docs, unused_variables, clippy::todo)]
#[derive(Debug, Clone, Default)]
pub struct RegistryOptions {
    /** hosts spoken to over plain http or with unchecked certificates */
    pub insecure: Vec<String>,
    /** stands in for docker.io (MEMOBUILD_REGISTRY_MIRROR) */
    pub mirrors: Vec<(String, String)>,
}
/// The connections and tokens; cheap to clone, one for a build.
#[derive(Debug, Clone)]
pub struct Registries(());
impl Registries {
    pub fn new(options: RegistryOptions) -> Self {
        todo!()
    }
}
