//! PEM: base64 between lines that say what it is (RFC 7468). By hand, since a key file may hold other blocks before the
//! key, and cosign's labels are on no list.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use p256::elliptic_curve::zeroize::Zeroizing;

/// The first block with one of these labels: its label and bytes.
pub(super) fn find<'a>(text: &str, labels: &[&'a str]) -> Option<(&'a str, Zeroizing<Vec<u8>>)> {
    labels.iter().find_map(|label| {
        let (_, rest) = text.split_once(&format!("-----BEGIN {label}-----"))?;
        let (body, _) = rest.split_once(&format!("-----END {label}-----"))?;
        let body: Zeroizing<String> = Zeroizing::new(body.split_whitespace().collect());
        Some((*label, Zeroizing::new(STANDARD.decode(body.as_bytes()).ok()?)))
    })
}

/// A block, in lines of 64 characters.
pub(super) fn write(label: &str, bytes: &[u8]) -> Zeroizing<String> {
    let body = Zeroizing::new(STANDARD.encode(bytes));
    let mut out = Zeroizing::new(format!("-----BEGIN {label}-----\n"));
    for (i, c) in body.chars().enumerate() {
        if i > 0 && i % 64 == 0 {
            out.push('\n');
        }
        out.push(c);
    }
    out.push_str(&format!("\n-----END {label}-----\n"));
    out
}
