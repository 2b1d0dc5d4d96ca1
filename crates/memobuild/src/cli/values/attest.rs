//! `--provenance`, `--sbom`, `--attest`, as buildx reads them.

use memobuild_engine::Provenance;

use super::{boolean, csv};

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Attest {
    /// Provenance, or none of it.
    Provenance(Option<Provenance>),
    /// An SBOM, or none.
    Sbom(bool),
}

/// `--provenance`: `true`, `false`, `min`, `max`, or `mode=min|max,builder-id=URL`.
pub(crate) fn provenance(text: &str) -> Result<Attest, String> {
    provenance_of(&split(text)?)
}

/// `--sbom`: `true`, `false`, or `generator=...`, which is not for this program.
pub(crate) fn sbom(text: &str) -> Result<Attest, String> {
    sbom_of(&split(text)?)
}

/// `--attest`: `type=provenance|sbom`, then what the other two take.
pub(crate) fn attest(text: &str) -> Result<Attest, String> {
    let mut fields = csv::fields(text)?;
    let at =
        fields.iter().position(|field| field.starts_with("type=")).ok_or("type=provenance or type=sbom is missing")?;
    match fields.remove(at).as_str() {
        "type=provenance" => provenance_of(&fields),
        "type=sbom" => sbom_of(&fields),
        other => Err(format!("{other}: expected type=provenance or type=sbom")),
    }
}

fn split(text: &str) -> Result<Vec<String>, String> {
    if text.is_empty() { Ok(Vec::new()) } else { csv::fields(text) }
}

fn provenance_of(fields: &[String]) -> Result<Attest, String> {
    let mut out = Provenance::default();
    for field in fields {
        match field.split_once('=') {
            Some(("mode", mode)) => out.max = is_max(mode)?,
            Some(("builder-id", id)) => out.builder_id = id.into(),
            Some(("disabled", value)) if boolean("disabled", value)? => return Ok(Attest::Provenance(None)),
            Some(("disabled", _)) => {}
            // Both are what they are here: version 1, and always kept inside the build.
            Some(("version", "v1") | ("inline-only", _)) => {}
            Some((key, _)) => return Err(format!("unknown key {key:?}: expected mode, builder-id, disabled")),
            None if matches!(field.as_str(), "min" | "max") => out.max = is_max(field)?,
            None if boolean("provenance", field)? => {}
            None => return Ok(Attest::Provenance(None)),
        }
    }
    Ok(Attest::Provenance(Some(out)))
}

fn is_max(mode: &str) -> Result<bool, String> {
    match mode {
        "min" => Ok(false),
        "max" => Ok(true),
        _ => Err(format!("mode={mode}: expected min or max")),
    }
}

fn sbom_of(fields: &[String]) -> Result<Attest, String> {
    let mut wanted = true;
    for field in fields {
        match field.split_once('=') {
            Some(("disabled", value)) => wanted = !boolean("disabled", value)?,
            Some(("generator", _)) => return Err("generators are not run: memobuild lists packages itself".into()),
            Some((key, _)) => return Err(format!("unknown key {key:?}: expected true, false or disabled")),
            None => wanted = boolean("sbom", field)?,
        }
    }
    Ok(Attest::Sbom(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(max: bool, builder_id: &str) -> Result<Attest, String> {
        Ok(Attest::Provenance(Some(Provenance { max, builder_id: builder_id.into() })))
    }

    #[test]
    fn as_buildx_reads_them() {
        assert_eq!(provenance("true"), told(false, ""));
        assert_eq!(provenance(""), told(false, ""));
        assert_eq!(provenance("max"), told(true, ""));
        assert_eq!(provenance("mode=max,builder-id=https://ci.example/7"), told(true, "https://ci.example/7"));
        assert_eq!(provenance("false"), Ok(Attest::Provenance(None)));
        assert_eq!(attest("type=provenance,mode=max"), told(true, ""));
        assert_eq!(attest("type=provenance,disabled=true"), Ok(Attest::Provenance(None)));
        assert_eq!((sbom("true"), sbom("")), (Ok(Attest::Sbom(true)), Ok(Attest::Sbom(true))));
        assert_eq!(attest("type=sbom,disabled=true"), Ok(Attest::Sbom(false)));
        for wrong in ["mode=some", "maximal", "x=y"] {
            assert!(provenance(wrong).is_err(), "{wrong}");
        }
        for wrong in ["mode=max", "type=other", ""] {
            assert!(attest(wrong).is_err(), "{wrong}");
        }
        assert!(sbom("generator=image").is_err());
    }
}
