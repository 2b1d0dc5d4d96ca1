//! The SPDX document (SPDX 2.3, JSON). The same packages, image and time give the same bytes: entries are sorted, and
//! identifiers are made from what they name.

use std::collections::BTreeMap;

use memobuild_image::{json, time};
use memobuild_tree::Sha256Digest;
use serde::Serialize;

use super::{Ecosystem, Package, Scan};
use crate::purl;

/// By this a statement says that its predicate is an SPDX document (in-toto's `spec/predicates/spdx.md`).
pub const PREDICATE_TYPE: &str = "https://spdx.dev/Document";

const NAMESPACE: &str = "https://github.com/memobuild/memobuild/spdx";
const UNKNOWN: &str = "NOASSERTION";
/// How many of the files that tell of a package are named.
const LOCATIONS: usize = 10;
const IMAGE_ID: &str = "SPDXRef-Image";

/// What a document is about.
#[derive(Debug, Clone, Copy)]
pub struct Document<'a> {
    /// The image's name as the user wrote it, without tag or digest; or what else it is to be called.
    pub name: &'a str,
    /// The digest of the image's manifest: the namespace is made from it.
    pub image: Sha256Digest,
    /// When the document is made, in seconds since the epoch. `SOURCE_DATE_EPOCH`, where that is given.
    pub created: i64,
    /// The version of this program.
    pub tool_version: &'a str,
}

impl Document<'_> {
    /// The document for what was found, as compact JSON.
    ///
    /// # Errors
    /// Never in practice: all keys are texts.
    pub fn to_json(&self, scan: &Scan) -> serde_json::Result<Vec<u8>> {
        let mut packages = vec![self.image_package()];
        packages.extend(scan.packages.iter().map(SpdxPackage::of));
        let relation = |from: &str, kind, to: &str| Relationship {
            spdx_element_id: from.into(),
            relationship_type: kind,
            related_spdx_element: to.into(),
        };
        let mut relationships = vec![relation("SPDXRef-DOCUMENT", "DESCRIBES", IMAGE_ID)];
        relationships.extend(packages.iter().skip(1).map(|p| relation(IMAGE_ID, "CONTAINS", &p.spdxid)));
        let texts: BTreeMap<&str, &str> = scan.packages.iter().flat_map(|p| p.license.references()).collect();
        let extracted = |(license_id, extracted_text)| Extracted { license_id, extracted_text };
        json::compact(&SpdxDocument {
            spdx_version: "SPDX-2.3",
            data_license: "CC0-1.0",
            spdxid: "SPDXRef-DOCUMENT",
            name: self.name,
            document_namespace: format!("{NAMESPACE}/sha256/{}", self.image.hex()),
            creation_info: CreationInfo {
                created: time::rfc3339(self.created, 0),
                creators: vec![format!("Tool: memobuild-{}", self.tool_version)],
                license_list_version: list_version(),
            },
            packages,
            has_extracted_licensing_infos: texts.into_iter().map(extracted).collect(),
            relationships,
        })
    }

    /// The image itself.
    fn image_package(&self) -> SpdxPackage {
        let last = self.name.rsplit('/').next().unwrap_or(self.name);
        SpdxPackage {
            spdxid: IMAGE_ID.into(),
            name: self.name.into(),
            version_info: self.image.to_string(),
            checksums: vec![Checksum { algorithm: "SHA256", checksum_value: self.image.hex() }],
            primary_package_purpose: "CONTAINER",
            external_refs: vec![ExternalRef::purl(purl::oci(last, &self.image))],
            ..SpdxPackage::default()
        }
    }
}

/// Two numbers, as the field wants it (6.7).
fn list_version() -> String {
    spdx::license_version().splitn(3, '.').take(2).collect::<Vec<_>>().join(".")
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SpdxDocument<'a> {
    spdx_version: &'static str,
    data_license: &'static str,
    #[serde(rename = "SPDXID")]
    spdxid: &'static str,
    name: &'a str,
    document_namespace: String,
    creation_info: CreationInfo,
    packages: Vec<SpdxPackage>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    has_extracted_licensing_infos: Vec<Extracted<'a>>,
    relationships: Vec<Relationship>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CreationInfo {
    created: String,
    creators: Vec<String>,
    license_list_version: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Extracted<'a> {
    license_id: &'a str,
    extracted_text: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Relationship {
    spdx_element_id: String,
    relationship_type: &'static str,
    related_spdx_element: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Checksum {
    algorithm: &'static str,
    checksum_value: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExternalRef {
    reference_category: &'static str,
    reference_type: &'static str,
    reference_locator: String,
}

impl ExternalRef {
    fn purl(locator: String) -> Self {
        Self { reference_category: "PACKAGE-MANAGER", reference_type: "purl", reference_locator: locator }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SpdxPackage {
    #[serde(rename = "SPDXID")]
    spdxid: String,
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    version_info: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    supplier: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    originator: Option<String>,
    download_location: &'static str,
    files_analyzed: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    checksums: Vec<Checksum>,
    #[serde(skip_serializing_if = "Option::is_none")]
    homepage: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    source_info: String,
    license_concluded: &'static str,
    license_declared: String,
    copyright_text: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    summary: Option<String>,
    primary_package_purpose: &'static str,
    external_refs: Vec<ExternalRef>,
}

impl Default for SpdxPackage {
    fn default() -> Self {
        Self {
            spdxid: String::new(),
            name: String::new(),
            version_info: String::new(),
            supplier: None,
            originator: None,
            download_location: UNKNOWN,
            files_analyzed: false,
            checksums: Vec::new(),
            homepage: None,
            source_info: String::new(),
            license_concluded: UNKNOWN,
            license_declared: UNKNOWN.into(),
            copyright_text: UNKNOWN,
            summary: None,
            primary_package_purpose: "LIBRARY",
            external_refs: Vec::new(),
        }
    }
}

impl SpdxPackage {
    fn of(package: &Package) -> Self {
        // A common module may be in hundreds of programs.
        let mut locations: Vec<&str> = package.locations.iter().map(String::as_str).take(LOCATIONS).collect();
        let more = package.locations.len().saturating_sub(LOCATIONS);
        let more = (more > 0).then(|| format!("{more} more"));
        locations.extend(more.as_deref());
        Self {
            spdxid: spdx_id(package),
            name: package.name.clone(),
            version_info: package.version.clone(),
            supplier: package.supplier.as_ref().map(super::Actor::spdx),
            originator: package.originator.as_ref().map(super::Actor::spdx),
            homepage: package.homepage.clone().filter(|h| is_url(h)),
            source_info: format!("found in {}", locations.join(", ")),
            license_declared: package.license.expression().unwrap_or(UNKNOWN).into(),
            summary: package.summary.clone(),
            primary_package_purpose: match package.ecosystem {
                // As the JSON schema spells it; the text of the specification has a dash.
                Ecosystem::Os => "OPERATING_SYSTEM",
                // A package of a distribution may be anything.
                Ecosystem::Deb | Ecosystem::Apk | Ecosystem::Rpm => "INSTALL",
                Ecosystem::Python | Ecosystem::Npm | Ecosystem::Go | Ecosystem::Cargo => "LIBRARY",
            },
            external_refs: vec![ExternalRef::purl(package.purl.clone())],
            ..Self::default()
        }
    }
}

/// Letters, digits, `.` and `-` (3.2.4 of the specification); the package URL's digest makes it unique.
fn spdx_id(package: &Package) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
    let name: String = package.name.chars().take(60).map(plain).collect();
    let hex = Sha256Digest::of(package.purl.as_bytes()).hex();
    format!("SPDXRef-{}-{name}-{}", package.ecosystem.purl_type(), hex.get(..16).unwrap_or(&hex))
}

/// Homepages are typed by people: those that no validator would take are left out.
fn is_url(text: &str) -> bool {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~:/?#@!$&'()*+,;=%".contains(&b);
    rest.is_some_and(|r| r.bytes().all(plain) && r.split('/').next().is_some_and(|host| host.contains('.')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_that_are_no_urls_are_left_out() {
        assert!(is_url("https://www.gnu.org/software/libc/libc.html"));
        for bad in ["", "www.x.org", "https://", "https://x y.org", "ftp://x.org/", "http://localhost"] {
            assert!(!is_url(bad), "{bad}");
        }
    }
}
