//! Reading again, while the server runs, what an administrator may have changed.

use std::sync::Arc;

use crate::{ServerError, routes::App};

/// Reads a server's files again. SIGHUP does this where [`crate::serve`] runs it.
#[derive(Clone)]
pub struct Reloader(pub(crate) Arc<App>);

impl Reloader {
    /// Reads tokens, certificates and the webhooks' secret again, and opens the audit log anew. What can't be read stays as
    /// it was, and the others are read nonetheless. Blocks.
    ///
    /// # Errors
    /// The first failure; the log and the audit log have it too.
    pub fn reload(&self) -> Result<(), ServerError> {
        let app = &*self.0;
        let tokens = app.auth.reload().map_err(ServerError::from);
        let result = tokens.and(app.guard.reload(&app.config.security));
        match &result {
            Ok(()) => app.guard.note("reload", None),
            Err(error) => {
                let cause = std::error::Error::source(error).map(|s| format!(": {s}")).unwrap_or_default();
                tracing::error!("the old settings stay: {error}{cause}");
                app.guard.note("reload", Some(&format!("{error}{cause}")));
            }
        }
        result
    }

    /// Whether there is anything to read: without that, SIGHUP means what it means to any program.
    pub(crate) fn has_files(&self) -> bool {
        let config = &self.0.config;
        let security = &config.security;
        config.tokens.is_some()
            || security.tls.is_some()
            || security.audit_log.is_some()
            || security.webhook_secret.is_some()
    }
}
