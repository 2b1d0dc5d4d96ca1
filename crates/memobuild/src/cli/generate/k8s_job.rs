//! A Job that builds.

use std::fmt::Write as _;

use super::{
    Cache,
    k8s::{RunAs, Source, Wanted},
    yaml::{indent, string},
};

/// `with_server`: its Secret is in the same file.
pub(super) fn document(wanted: &Wanted<'_>, source: &Source<'_>, with_server: bool) -> String {
    let mut out = head(wanted, with_server);
    let _ = write!(out, "apiVersion: batch/v1\nkind: Job\n{}", wanted.metadata(wanted.name));
    out.push_str("spec:\n  # A build that failed fails again: only a node that went away is worth another try.\n");
    out.push_str("  backoffLimit: 1\n  ttlSecondsAfterFinished: 86400\n  template:\n    metadata:\n      labels:\n");
    let _ = writeln!(out, "        app.kubernetes.io/name: {}", wanted.name);
    out.push_str("    spec:\n");
    out.push_str(&indent(&pod(wanted, source), 6));
    out
}

/// What must be there, as comments.
fn head(wanted: &Wanted<'_>, with_server: bool) -> String {
    let namespace = wanted.namespace.map(|n| format!(" --namespace {n}")).unwrap_or_default();
    let mut out = format!(
        "# Builds with memobuild: `memobuild generate-k8s` wrote this. To run it again:\n\
         #   kubectl delete job {}{namespace}\n\
         #   kubectl apply -f FILE\n",
        wanted.name
    );
    if wanted.cache == Cache::Server && !with_server {
        let _ = write!(
            out,
            "# The Secret of the cache, with a token of scope write (`memobuild server token add`):\n\
             #   kubectl create secret generic {}{namespace} --from-literal=url=URL --from-literal=token=TOKEN\n",
            wanted.cache_secret
        );
    }
    if let Some(secret) = wanted.registry_secret {
        let _ = write!(
            out,
            "# The Secret of the registry:\n\
             #   kubectl create secret docker-registry {secret}{namespace} --docker-server=HOST --docker-username=NAME\n"
        );
    }
    out
}

fn pod(wanted: &Wanted<'_>, source: &Source<'_>) -> String {
    let mut out = String::from("restartPolicy: Never\nautomountServiceAccountToken: false\n");
    out.push_str(pod_security(wanted.run_as));
    let _ =
        write!(out, "containers:\n  - name: build\n    image: {}\n    command: [memobuild]\n", string(wanted.image));
    out.push_str("    args:\n");
    for word in arguments(wanted, source) {
        // Kubernetes puts variables in for `$(NAME)`.
        let _ = writeln!(out, "      - {}", string(&word.replace("$(", "$$(")));
    }
    out.push_str(&indent(&environment(wanted), 4));
    out.push_str(&indent(&resources(wanted), 4));
    out.push_str(&indent(container_security(wanted.run_as), 4));

    // Overlays can't stand on the container's own overlay: what steps write lies on volumes.
    let mut mounts = vec![("scratch".to_owned(), "/scratch", false)];
    if wanted.registry_secret.is_some() {
        mounts.push(("registry".to_owned(), "/registry", true));
    }
    if let Source::Volume(..) = source {
        mounts.push(("context".to_owned(), "/context", true));
    }
    out.push_str("    volumeMounts:\n");
    for (name, path, read_only) in mounts {
        let _ = write!(out, "      - name: {name}\n        mountPath: {path}\n");
        if read_only {
            out.push_str("        readOnly: true\n");
        }
    }
    let _ = write!(out, "volumes:\n  - name: scratch\n    emptyDir:\n      sizeLimit: {}\n", wanted.scratch);
    if let Some(secret) = wanted.registry_secret {
        let _ = write!(
            out,
            "  - name: registry\n    secret:\n      secretName: {secret}\n      items:\n        - key: .dockerconfigjson\n\
             \x20         path: config.json\n"
        );
    }
    if let Source::Volume(claim, _) = source {
        let _ = write!(
            out,
            "  - name: context\n    persistentVolumeClaim:\n      claimName: {claim}\n      readOnly: true\n"
        );
    }
    out
}

fn arguments(wanted: &Wanted<'_>, source: &Source<'_>) -> Vec<String> {
    let mut words: Vec<String> = ["build", "--progress", "plain"].map(str::to_owned).into();
    words.extend(wanted.flags.iter().cloned());
    if let (Cache::Registry, Some(tag)) = (wanted.cache, wanted.tag) {
        let cache = format!("{}:cache", repository(tag));
        // A lone user's results are kept apart from the others, and shared only if that is asked for.
        let single = if wanted.run_as == RunAs::User { ",single-owner=true" } else { "" };
        words.extend(["--cache-from".to_owned(), cache.clone()]);
        words.extend(["--cache-to".to_owned(), format!("type=registry,ref={cache},mode=max{single}")]);
    }
    if let Some(tag) = wanted.tag {
        words.extend(["--tag", tag, "--push"].map(str::to_owned));
    }
    words.push(match source {
        Source::Git(url) => (*url).to_owned(),
        Source::Volume(_, "") => "/context".to_owned(),
        Source::Volume(_, directory) => format!("/context/{directory}"),
    });
    words
}

/// An image's name without its tag. A colon before the last slash is a port's.
fn repository(tag: &str) -> &str {
    let tag = tag.split_once('@').map_or(tag, |(name, _)| name);
    match tag.rsplit_once(':') {
        Some((name, version)) if !version.contains('/') => name,
        _ => tag,
    }
}

fn environment(wanted: &Wanted<'_>) -> String {
    let mut out = String::from("env:\n  - name: HOME\n    value: /scratch/home\n");
    out.push_str("  - name: TMPDIR\n    value: /scratch\n");
    out.push_str("  - name: MEMOBUILD_CACHE_DIR\n    value: /scratch/cache\n");
    if wanted.registry_secret.is_some() {
        out.push_str("  - name: DOCKER_CONFIG\n    value: /registry\n");
    }
    if wanted.cache == Cache::Server {
        for (name, key) in [("MEMOBUILD_REMOTE_URL", "url"), ("MEMOBUILD_TOKEN", "token")] {
            let _ = write!(
                out,
                "  - name: {name}\n    valueFrom:\n      secretKeyRef:\n        name: {}\n        key: {key}\n",
                wanted.cache_secret
            );
        }
    }
    out
}

fn resources(wanted: &Wanted<'_>) -> String {
    // No limit of processors: what the node has to spare makes a build shorter.
    let mut out = format!(
        "resources:\n  requests:\n    cpu: {}\n    memory: {memory}\n  limits:\n    memory: {memory}\n",
        string(wanted.cpu),
        memory = string(wanted.memory)
    );
    if let Some(resource) = wanted.fuse {
        let _ = writeln!(out, "    {}: \"1\"", string(resource));
    }
    out
}

/// Steps are run in namespaces with mounts of their own. The profiles that runtimes apply forbid these to whoever is not
/// the node's root, and a new /proc may be mounted only where the pod's own is whole, which Kubernetes grants to pods with
/// a user namespace alone.
fn pod_security(run_as: RunAs) -> &'static str {
    match run_as {
        RunAs::Userns => {
            "# An ordinary user on the node, and root among the ids that the pod has.\n\
             hostUsers: false\n\
             securityContext:\n\
             \x20 runAsUser: 0\n\
             \x20 runAsGroup: 0\n\
             \x20 seccompProfile:\n\
             \x20   type: Unconfined\n\
             \x20 appArmorProfile:\n\
             \x20   type: Unconfined\n"
        }
        RunAs::User => {
            "hostUsers: false\n\
             securityContext:\n\
             \x20 runAsNonRoot: true\n\
             \x20 runAsUser: 1000\n\
             \x20 runAsGroup: 1000\n\
             \x20 fsGroup: 1000\n\
             \x20 seccompProfile:\n\
             \x20   type: Unconfined\n\
             \x20 appArmorProfile:\n\
             \x20   type: Unconfined\n"
        }
        RunAs::Root => {
            "securityContext:\n\
             \x20 runAsUser: 0\n\
             \x20 runAsGroup: 0\n\
             \x20 seccompProfile:\n\
             \x20   type: RuntimeDefault\n"
        }
    }
}

fn container_security(run_as: RunAs) -> &'static str {
    match run_as {
        RunAs::Userns => "securityContext:\n  allowPrivilegeEscalation: false\n  procMount: Unmasked\n",
        RunAs::User => {
            "securityContext:\n\
             \x20 allowPrivilegeEscalation: false\n\
             \x20 capabilities:\n\
             \x20   drop: [ALL]\n\
             \x20 procMount: Unmasked\n"
        }
        RunAs::Root => "securityContext:\n  privileged: false\n",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_no_tag() {
        for (tag, name) in [
            ("app", "app"),
            ("app:1", "app"),
            ("host:5000/app", "host:5000/app"),
            ("host:5000/a/b:1", "host:5000/a/b"),
            ("host/app@sha256:00", "host/app"),
        ] {
            assert_eq!(repository(tag), name);
        }
    }
}
