//! `--output`.

use memobuild_engine::{CompressionMethod, Destination, Output, OutputKind};

use super::{boolean, csv};

const KEYS: &str = "type, dest, name, compression, compression-level, force-compression, oci-mediatypes, \
                    rewrite-timestamp, tar, push, annotation.KEY";

/// `type=oci|docker|tar|local|image|registry,dest=...`; a bare path is a directory, `-` a tar on standard output.
pub(crate) fn output(text: &str) -> Result<Output, String> {
    let fields = csv::fields(text)?;
    if let [only] = fields.as_slice()
        && only == text
        && !only.starts_with("type=")
    {
        return match text {
            "" => Err("expected a directory, - or type=...,dest=...".into()),
            "-" => Ok(plain(OutputKind::Tar, Some(Destination::Stdout))),
            path => Ok(plain(OutputKind::Local, Some(Destination::Path(path.into())))),
        };
    }
    let mut out = plain(OutputKind::Image, None);
    let mut kind = None;
    for field in &fields {
        let (key, value) = csv::key_value(field)?;
        match key.as_str() {
            "type" if value == "registry" => {
                (kind, out.push) = (Some(OutputKind::Image), true);
            }
            "type" => kind = Some(kind_of(value)?),
            "dest" => {
                out.dest = Some(if value == "-" { Destination::Stdout } else { Destination::Path(value.into()) });
            }
            "name" => out.names.extend(value.split(',').filter(|n| !n.is_empty()).map(str::to_owned)),
            "compression" => out.compression.method = Some(method_of(value)?),
            "compression-level" => {
                let level = value.parse().map_err(|_| format!("compression-level={value}: expected a number"))?;
                out.compression.level = Some(level);
            }
            "force-compression" => out.compression.force = boolean(&key, value)?,
            "oci-mediatypes" => out.oci_mediatypes = Some(boolean(&key, value)?),
            "rewrite-timestamp" => out.rewrite_timestamp = boolean(&key, value)?,
            "tar" => out.tar = Some(boolean(&key, value)?),
            "push" => out.push = boolean(&key, value)?,
            _ => {
                let Some(name) = key.strip_prefix("annotation.").or_else(|| key.strip_prefix("annotation-manifest."))
                else {
                    return Err(format!("unknown key {key:?}: expected one of {KEYS}"));
                };
                // The key was put into lower case with the field's name; annotation names keep theirs.
                let written = field.get(..key.len()).and_then(|k| k.get(k.len() - name.len()..)).unwrap_or(name);
                out.annotations.insert(written.to_owned(), value.to_owned());
            }
        }
    }
    out.kind = kind.ok_or("type=... is missing: expected type=oci|docker|tar|local|image|registry")?;
    check_dest(&mut out)?;
    Ok(out)
}

fn plain(kind: OutputKind, dest: Option<Destination>) -> Output {
    Output { dest, ..Output::new(kind) }
}

fn kind_of(value: &str) -> Result<OutputKind, String> {
    Ok(match value {
        "oci" => OutputKind::Oci,
        "docker" => OutputKind::Docker,
        "tar" => OutputKind::Tar,
        "local" => OutputKind::Local,
        "image" => OutputKind::Image,
        _ => return Err(format!("type={value}: expected oci, docker, tar, local, image or registry")),
    })
}

fn method_of(value: &str) -> Result<CompressionMethod, String> {
    let found = CompressionMethod::ALL.into_iter().find(|method| method.name() == value);
    found.ok_or_else(|| {
        let names = CompressionMethod::ALL.map(CompressionMethod::name).join(", ");
        format!("compression={value}: expected one of {names}")
    })
}

/// What each kind needs of `dest`; archives without one go to standard output. `type=docker` without one stays as it is:
/// a build loads it, as with docker.
fn check_dest(out: &mut Output) -> Result<(), String> {
    match (out.kind, &out.dest) {
        (OutputKind::Local, None) => Err("type=local needs dest=DIRECTORY".into()),
        (OutputKind::Local, Some(Destination::Stdout)) => {
            Err("type=local can't go to standard output: take type=tar".into())
        }
        (OutputKind::Oci | OutputKind::Docker | OutputKind::Tar | OutputKind::Local, _) if out.push => {
            Err("push=true goes with type=image".into())
        }
        (OutputKind::Image, Some(_)) => Err("type=image stays in memobuild's store and takes no dest".into()),
        (OutputKind::Oci | OutputKind::Docker, None | Some(Destination::Stdout)) if out.tar == Some(false) => {
            Err("tar=false needs dest=DIRECTORY".into())
        }
        (OutputKind::Oci | OutputKind::Tar, None) => {
            out.dest = Some(Destination::Stdout);
            Ok(())
        }
        (OutputKind::Tar, Some(Destination::Path(path))) if path.is_dir() => {
            Err(format!("{} is a directory: type=tar writes a file", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use memobuild_engine::Compression;

    use super::*;

    #[test]
    fn short_forms() {
        assert_eq!(output("out"), Ok(plain(OutputKind::Local, Some(Destination::Path("out".into())))));
        assert_eq!(output("-"), Ok(plain(OutputKind::Tar, Some(Destination::Stdout))));
        assert_eq!(output("type=tar"), Ok(plain(OutputKind::Tar, Some(Destination::Stdout))));
        assert_eq!(output("type=image"), Ok(plain(OutputKind::Image, None)));
        assert_eq!(output("type=docker"), Ok(plain(OutputKind::Docker, None)));
        let pushed = Output { push: true, ..plain(OutputKind::Image, None) };
        assert_eq!((output("type=registry"), output("type=image,push=true")), (Ok(pushed.clone()), Ok(pushed)));
    }

    #[test]
    fn every_key() {
        let got = output(
            "type=oci,dest=a.tar,\"name=x/y:1,x/y:2\",compression=zstd,compression-level=7,force-compression=1,\
             oci-mediatypes=false,rewrite-timestamp=true,tar=true,annotation.org.X=Y,annotation-manifest.b=c=d",
        )
        .unwrap();
        let want = Output {
            kind: OutputKind::Oci,
            dest: Some(Destination::Path("a.tar".into())),
            names: vec!["x/y:1".into(), "x/y:2".into()],
            push: false,
            compression: Compression { method: Some(CompressionMethod::Zstd), level: Some(7), force: true },
            rewrite_timestamp: true,
            oci_mediatypes: Some(false),
            tar: Some(true),
            annotations: [("org.X".to_owned(), "Y".to_owned()), ("b".to_owned(), "c=d".to_owned())].into(),
        };
        assert_eq!(got, want);
    }

    #[test]
    fn every_compression() {
        for method in CompressionMethod::ALL {
            let got = output(&format!("type=image,push=true,compression={}", method.name())).unwrap();
            assert_eq!(got.compression.method, Some(method));
            assert!(memobuild_oci::layer::Compression::parse(method.name(), None).is_some(), "{method:?}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for bad in [
            "",
            "type=x",
            "dest=a,name=b",
            "type=local",
            "type=local,dest=-",
            "type=oci,tar=false",
            "type=image,dest=a",
            "type=oci,dest=a,compression=lz4",
            "type=oci,dest=a,foo=b",
            "type=oci,dest",
            "type=image,push=maybe",
            "type=oci,dest=a,push=true",
            "type=oci,dest=a,tar=maybe",
            "type=tar,dest=/",
            "a,b",
        ] {
            assert!(output(bad).is_err(), "{bad}");
        }
    }
}
