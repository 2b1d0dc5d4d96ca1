//! The cache's server: one process with a volume of its own.

use memobuild_observe::FailureKind;
use memobuild_server::{Scope, add_token};

use super::{
    k8s::Wanted,
    yaml::{indent, list, string},
};
use crate::cli::Failure;

/// A token for the Jobs, and what the server has of it.
pub(super) struct Token {
    pub(super) plain: String,
    /// The server's file of tokens.
    pub(super) hashed: String,
}

impl Token {
    /// A new one, of scope write.
    pub(super) fn new() -> Result<Self, Failure> {
        let dir = tempfile::tempdir().map_err(|error| Failure::file("cannot make a temporary directory", &error))?;
        let path = dir.path().join("tokens");
        let plain = add_token(&path, "kubernetes", Scope::Write)
            .map_err(|error| Failure::caused(FailureKind::Cache, &error))?;
        let hashed = std::fs::read_to_string(&path).map_err(|error| Failure::file("cannot read a token", &error))?;
        Ok(Self { plain, hashed })
    }
}

/// Secrets, claim, Deployment and Service.
pub(super) fn documents(wanted: &Wanted<'_>, token: &Token) -> String {
    let name = format!("{}-server", wanted.name);
    let metadata = wanted.metadata(&name);
    let arguments = list(&[
        "server",
        "--listen",
        "0.0.0.0:8080",
        "--data-dir",
        "/data/cache",
        "--max-size",
        wanted.max_size,
        "--tokens",
        "/etc/memobuild/tokens",
    ]);
    let url = string(&format!("http://{name}:8080"));
    format!(
        r#"# The cache's server: `memobuild generate-k8s --server` wrote this, and made a token for it. This file has the token in
# it: keep it where secrets are kept.
apiVersion: v1
kind: Secret
{metadata}stringData:
  # Hashes of tokens, a line each. `memobuild server token add` makes more.
  tokens: |
{tokens}---
apiVersion: v1
kind: Secret
{cache_metadata}stringData:
  url: {url}
  token: {token}
---
apiVersion: v1
kind: PersistentVolumeClaim
{metadata}spec:
  accessModes: [ReadWriteOnce]
  resources:
    requests:
      storage: {volume}
---
apiVersion: apps/v1
kind: Deployment
{metadata}spec:
  # The directory belongs to one server at a time: the old one ends before the new one starts. For more of them see
  # docs/storage.md of memobuild.
  replicas: 1
  strategy:
    type: Recreate
  selector:
    matchLabels:
      app.kubernetes.io/name: {name}
  template:
    metadata:
      labels:
        app.kubernetes.io/name: {name}
    spec:
      automountServiceAccountToken: false
      # Uploads under way are finished before it ends.
      terminationGracePeriodSeconds: 60
      securityContext:
        runAsNonRoot: true
        runAsUser: 1000
        runAsGroup: 1000
        fsGroup: 1000
        fsGroupChangePolicy: OnRootMismatch
        seccompProfile:
          type: RuntimeDefault
      containers:
        - name: server
          image: {image}
          command: [memobuild]
          args: {arguments}
          env:
            - name: RUST_LOG
              value: warn
            - name: MEMOBUILD_JSON_LOGS
              value: "1"
          ports:
            - name: http
              containerPort: 8080
          # At a start the directory is gone through, which takes a while where there are millions of blobs.
          startupProbe:
            httpGet:
              path: /healthz
              port: http
            periodSeconds: 2
            failureThreshold: 300
          livenessProbe:
            httpGet:
              path: /healthz
              port: http
            periodSeconds: 10
            timeoutSeconds: 5
          readinessProbe:
            httpGet:
              path: /readyz
              port: http
            periodSeconds: 5
            timeoutSeconds: 5
          resources:
            requests:
              cpu: 250m
              memory: 256Mi
            limits:
              memory: 512Mi
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities:
              drop: [ALL]
          volumeMounts:
            - name: data
              mountPath: /data
            - name: tokens
              mountPath: /etc/memobuild
              readOnly: true
            - name: tmp
              mountPath: /tmp
      volumes:
        - name: data
          persistentVolumeClaim:
            claimName: {name}
        - name: tokens
          secret:
            secretName: {name}
        - name: tmp
          emptyDir:
            sizeLimit: 1Gi
---
apiVersion: v1
kind: Service
{metadata}spec:
  selector:
    app.kubernetes.io/name: {name}
  ports:
    - name: http
      port: 8080
      targetPort: http
"#,
        tokens = indent(&token.hashed, 4),
        token = string(&token.plain),
        cache_metadata = wanted.metadata(&wanted.cache_secret),
        volume = wanted.volume,
        image = string(wanted.image),
    )
}
