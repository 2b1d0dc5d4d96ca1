//! `--cache-from` and `--cache-to`.

use memobuild_engine::{CachePlace, CacheTarget};
use memobuild_oci::reference::Reference;

use super::{boolean, csv};

const KINDS: &str = "registry, local or inline";

/// `type=registry,ref=NAME`, `type=local,src=DIR`; a bare name is a registry's.
pub(crate) fn cache_from(text: &str) -> Result<CachePlace, String> {
    let mut found = Fields::read(text, "src")?;
    match found.kind.as_str() {
        "registry" => Ok(CachePlace::Registry(found.reference()?)),
        "local" => found.directory("src"),
        "inline" => Err("a cache inside an image is read with type=registry,ref=IMAGE".into()),
        other => Err(unknown(other)),
    }
}

/// The same with `mode=`, `mounts=`, `ignore-error=` and `single-owner=`; and `type=inline`.
pub(crate) fn cache_to(text: &str) -> Result<CacheTarget, String> {
    let mut found = Fields::read(text, "dest")?;
    let place = match found.kind.as_str() {
        "registry" => Some(CachePlace::Registry(found.reference()?)),
        "local" => Some(found.directory("dest")?),
        "inline" => None,
        other => return Err(unknown(other)),
    };
    let Fields { max, mounts, single_owner, must, .. } = found;
    if place.is_none() && (max || mounts) {
        return Err(
            "type=inline holds what the image's layers are results of: it takes neither mode=max nor mounts".into()
        );
    }
    Ok(CacheTarget { place, max, mounts, single_owner, must })
}

fn unknown(kind: &str) -> String {
    format!("type={kind} is not known here: expected {KINDS}")
}

#[derive(Default)]
struct Fields {
    kind: String,
    reference: Option<String>,
    dir: Option<String>,
    tag: Option<String>,
    max: bool,
    mounts: bool,
    single_owner: bool,
    must: bool,
}

impl Fields {
    fn read(text: &str, dir: &str) -> Result<Self, String> {
        let mut out = Self::default();
        let fields = csv::fields(text)?;
        if let [only] = fields.as_slice()
            && !only.contains('=')
        {
            return Ok(Self { kind: "registry".into(), reference: Some(only.clone()), ..out });
        }
        let to = dir == "dest";
        for field in &fields {
            let (key, value) = csv::key_value(field)?;
            match key.as_str() {
                "type" => out.kind = value.into(),
                "ref" => out.reference = Some(value.into()),
                "tag" => out.tag = Some(value.into()),
                _ if key == dir => out.dir = Some(value.into()),
                "mode" if to => {
                    out.max = match value {
                        "min" => false,
                        "max" => true,
                        _ => return Err(format!("mode={value}: expected min or max")),
                    };
                }
                "mounts" if to => out.mounts = boolean(&key, value)?,
                "single-owner" if to => out.single_owner = boolean(&key, value)?,
                "ignore-error" if to => out.must = !boolean(&key, value)?,
                // What BuildKit needs to be told and is always so here.
                "image-manifest" | "oci-mediatypes" if to => drop(boolean(&key, value)?),
                "compression" | "compression-level" | "force-compression" if to => {
                    return Err(format!("{key} is not for caches here: they are always zstd"));
                }
                _ => {
                    let more = if to { ", mode, mounts, single-owner, ignore-error" } else { "" };
                    return Err(format!("unknown key {key:?}: expected type, ref, {dir}, tag{more}"));
                }
            }
        }
        if out.kind.is_empty() {
            return Err(format!("type=... is missing: expected {KINDS}"));
        }
        Ok(out)
    }

    fn reference(&mut self) -> Result<Reference, String> {
        let text = self.reference.take().ok_or("type=registry needs ref=REGISTRY/NAME:TAG")?;
        let reference: Reference = text.parse().map_err(|e| format!("ref={text}: {e}"))?;
        Ok(reference.with_default_tag())
    }

    fn directory(&mut self, key: &str) -> Result<CachePlace, String> {
        let dir = self.dir.take().filter(|dir| !dir.is_empty());
        let dir = dir.ok_or_else(|| format!("type=local needs {key}=DIRECTORY"))?;
        Ok(CachePlace::Directory(dir.into(), self.tag.take().unwrap_or_else(|| "latest".into())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources() {
        let name = CachePlace::Registry("r.example/a:b".parse().unwrap());
        assert_eq!(cache_from("r.example/a:b"), Ok(name.clone()));
        assert_eq!(cache_from("type=registry,ref=r.example/a:b"), Ok(name));
        let dir = CachePlace::Directory("c".into(), "latest".into());
        assert_eq!(cache_from("type=local,src=c"), Ok(dir));
        for wrong in ["type=registry", "type=local", "type=local,dest=c", "type=gha", "src=c", "type=inline", ""] {
            assert!(cache_from(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn targets() {
        let plain = CacheTarget { place: None, max: false, mounts: false, single_owner: false, must: false };
        assert_eq!(cache_to("type=inline"), Ok(plain.clone()));
        let dir = Some(CachePlace::Directory("c".into(), "x".into()));
        let all = CacheTarget { place: dir, max: true, mounts: true, single_owner: true, must: true };
        let text = "type=local,dest=c,tag=x,mode=max,mounts=true,single-owner=true,ignore-error=false";
        assert_eq!(cache_to(text), Ok(all));
        assert!(cache_to("type=registry,ref=a/b,image-manifest=true,oci-mediatypes=true").is_ok());
        for wrong in ["type=inline,mode=max", "type=registry,ref=a,mode=some", "type=local,src=c", "type=s3,bucket=b"] {
            assert!(cache_to(wrong).is_err(), "{wrong}");
        }
    }
}
