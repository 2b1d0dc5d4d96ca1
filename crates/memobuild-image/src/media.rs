//! Media types: OCI's and Docker's.

/// OCI image index.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// OCI image manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI image config.
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// OCI layer, plain tar.
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// OCI layer, gzip.
pub const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// OCI layer, zstd.
pub const LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
/// Docker manifest list.
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker image manifest, version 2 schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker image config.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// Docker layer, gzip.
pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
/// Docker layer, plain tar.
pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
/// Docker layer, zstd.
pub const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";
/// Docker's manifests of schema 1, which are no longer understood: to be refused with a message.
pub const DOCKER_MANIFEST_V1: [&str; 2] = [
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
];

/// Whether this is an index of either kind.
pub fn is_index(media_type: &str) -> bool {
    matches!(media_type, INDEX | DOCKER_INDEX)
}

/// Whether this is an image manifest of either kind.
pub fn is_manifest(media_type: &str) -> bool {
    matches!(media_type, MANIFEST | DOCKER_MANIFEST)
}

/// OCI's name for a layer type of Docker's; others are handed back as they are.
pub fn oci_layer(media_type: &str) -> &str {
    match media_type {
        DOCKER_LAYER => LAYER,
        DOCKER_LAYER_GZIP => LAYER_GZIP,
        DOCKER_LAYER_ZSTD => LAYER_ZSTD,
        other => other,
    }
}

/// Docker's name for a layer type of OCI's; others are handed back as they are.
pub fn docker_layer(media_type: &str) -> &str {
    match media_type {
        LAYER => DOCKER_LAYER,
        LAYER_GZIP => DOCKER_LAYER_GZIP,
        LAYER_ZSTD => DOCKER_LAYER_ZSTD,
        other => other,
    }
}
