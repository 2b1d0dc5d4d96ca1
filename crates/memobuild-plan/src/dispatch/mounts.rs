//! `RUN --mount`.

use memobuild_dockerfile::Span;
use memobuild_dockerfile::ast::{self, CacheMount, SecretMount, SshMount};

use super::Dispatch;
use crate::args::EnvList;
use crate::error::Failure;
use crate::model::{Mount, MountKind, NewDir, Sharing, StepId};
use crate::path;
use crate::stages::Command;

impl<'f> Dispatch<'_, 'f> {
    /// Reads the flags; names of environment variables that secrets set go to `secrets`.
    pub(super) fn mounts(
        &mut self,
        command: &Command<'f>,
        run: &ast::Run,
        out: &mut Vec<Mount>,
        secrets: &mut EnvList,
    ) -> Result<(), Failure> {
        let mut agents = 0;
        for (place, flag) in run.mounts.iter().enumerate() {
            let span = command.place(flag.value.span);
            let lexer = self.pass.lexer();
            let mut expansions = Vec::new();
            let resolved = flag.resolve(&mut |text| {
                let expansion = lexer.expand(text, &self.state.env).map_err(|e| e.to_string())?;
                let text = expansion.text.clone();
                expansions.push(expansion);
                Ok(text)
            });
            for expansion in expansions {
                self.report_undefined(command, &expansion);
            }
            let resolved = resolved.map_err(|error| Failure::new(span, error.to_string()))?;
            let source = command.sources.get(place).copied().flatten();
            let at = |target: &str| self.mount_target(target, span);
            let mount = match resolved {
                ast::Mount::Bind(bind) => {
                    let target = at(&bind.target)?;
                    let from = match self.mount_source(bind.from.as_deref(), source, &bind.target, span)? {
                        Some(from) => from,
                        None => self.context(),
                    };
                    let path = path::absolute(&bind.source);
                    Mount { target, kind: MountKind::Bind { from, path, writable: !bind.read_only } }
                }
                ast::Mount::Cache(cache) => {
                    let target = at(&cache.target)?;
                    let from = self.mount_source(cache.from.as_deref(), source, &cache.target, span)?;
                    Mount { target, kind: self.cache(cache, from) }
                }
                ast::Mount::Tmpfs(tmpfs) => Mount {
                    target: at(&tmpfs.target)?,
                    kind: MountKind::Tmpfs { size: tmpfs.size.filter(|&n| n > 0), read_only: tmpfs.read_only },
                },
                ast::Mount::Secret(secret) => self.secret(secret, secrets)?,
                ast::Mount::Ssh(ssh) => {
                    agents += 1;
                    self.ssh(ssh, agents - 1)
                }
            };
            out.push(mount);
        }
        Ok(())
    }

    /// An absolute target; none given is the working directory. The root can't be one.
    fn mount_target(&self, target: &str, span: Span) -> Result<String, Failure> {
        let absolute = path::within(&self.state.dir, target);
        if absolute == "/" {
            return Err(Failure::new(span, format!("invalid mount target {absolute:?}"))
                .expected("target=PATH, where PATH is not the root"));
        }
        Ok(absolute)
    }

    /// The tree that `from` names; none: there is no `from`.
    fn mount_source(
        &self,
        from: Option<&str>,
        source: Option<usize>,
        target: &str,
        span: Span,
    ) -> Result<Option<StepId>, Failure> {
        let (Some(from), Some(source)) = (from.filter(|from| !from.is_empty()), source) else {
            return Ok(None);
        };
        self.tree_of(source).map(Some).ok_or_else(|| {
            let text = format!(
                "cannot mount from stage {from:?} to {target:?}, stage needs to be defined before current command"
            );
            Failure::new(span, text)
        })
    }

    fn cache(&self, cache: CacheMount, from: Option<StepId>) -> MountKind {
        let id = cache.id.filter(|id| !id.is_empty()).unwrap_or_else(|| path::clean(&cache.target));
        let owner = cache.owner;
        let asked = owner.uid.is_some() || owner.gid.is_some() || owner.mode.is_some();
        let made =
            NewDir { uid: owner.uid.unwrap_or(0), gid: owner.gid.unwrap_or(0), mode: owner.mode.unwrap_or(0o755) };
        // A directory that a cache starts with keeps its owner and mode, whatever the mount asks for. But a whole
        // tree is not taken where an owner or mode is asked for: then the cache starts empty.
        let path = path::absolute(&cache.source);
        let (from, dir) = match from {
            Some(from) if path != "/" || !asked => (Some((from, path)), None),
            _ => (None, Some(made)),
        };
        let space = self.pass.options.build_args.get("BUILDKIT_CACHE_MOUNT_NS").filter(|space| !space.is_empty());
        MountKind::Cache {
            id: space.map_or(id.clone(), |space| format!("{space}/{id}")),
            from,
            sharing: match cache.sharing {
                ast::Sharing::Shared => Sharing::Shared,
                ast::Sharing::Private => Sharing::Private,
                ast::Sharing::Locked => Sharing::Locked,
            },
            read_only: cache.read_only,
            dir,
        }
    }

    fn secret(&self, secret: SecretMount, env: &mut EnvList) -> Result<Mount, Failure> {
        let named = secret.target.as_deref().filter(|target| !target.is_empty());
        let id = secret.id.filter(|id| !id.is_empty()).unwrap_or_else(|| path::base(named.unwrap_or("")).to_owned());
        let variable = secret.env.map(|name| if name.is_empty() { id.clone() } else { name });
        if let Some(name) = &variable {
            env.set(name, "****");
        }
        let target = match named {
            Some(target) => path::within(&self.state.dir, target),
            None => format!("/run/secrets/{}", path::base(&id)),
        };
        Ok(Mount {
            target,
            kind: MountKind::Secret {
                id,
                file: named.is_some() || variable.is_none(),
                env: variable,
                required: secret.required,
                uid: secret.owner.uid.unwrap_or(0),
                gid: secret.owner.gid.unwrap_or(0),
                mode: secret.owner.mode.unwrap_or(0o400),
            },
        })
    }

    fn ssh(&self, ssh: SshMount, number: usize) -> Mount {
        let target = match ssh.target.as_deref().filter(|target| !target.is_empty()) {
            Some(target) => path::within(&self.state.dir, target),
            None => format!("/run/buildkit/ssh_agent.{number}"),
        };
        Mount {
            target,
            kind: MountKind::Ssh {
                id: ssh.id.filter(|id| !id.is_empty()).unwrap_or_else(|| "default".to_owned()),
                required: ssh.required,
                uid: ssh.owner.uid.unwrap_or(0),
                gid: ssh.owner.gid.unwrap_or(0),
                mode: ssh.owner.mode.unwrap_or(0o600),
            },
        }
    }
}
