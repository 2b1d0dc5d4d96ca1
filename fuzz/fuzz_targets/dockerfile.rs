//! Any bytes as a Dockerfile: a tree or an error that can be shown; positions lie inside the text.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let parsed = memobuild_dockerfile::parse(text, "Dockerfile");
    if let Err(error) = &parsed {
        assert!(!error.diagnostic().render(false).is_empty());
    }
    if memobuild_dockerfile::dump::dump(text, "Dockerfile").is_err() {
        assert!(parsed.is_err(), "what has no lines has no instructions either");
    }
    if let Ok(text) = std::str::from_utf8(text) {
        let _ = memobuild_dockerfile::parse_trigger(text, "ONBUILD");
    }
});
