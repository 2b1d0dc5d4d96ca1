//! Any word under any settings: an expansion or an error. Values are not expanded a second time, and a word without
//! quotes, escapes and variables stays what it is.
#![no_main]

use libfuzzer_sys::fuzz_target;
use memobuild_dockerfile::words::{Env, Lexer};

/// Three variables; the value of one looks like a reference.
struct Some3<'a>(&'a str);

impl Env for Some3<'_> {
    fn get(&self, name: &str) -> Option<String> {
        match name {
            "A" => Some(self.0.to_owned()),
            "B" => Some("${A}$B".into()),
            "E" => Some(String::new()),
            _ => None,
        }
    }

    fn names(&self) -> Vec<String> {
        ["A", "B", "E"].map(str::to_owned).to_vec()
    }
}

fuzz_target!(|input: (u8, &str, &str)| {
    let (flags, value, word) = input;
    let lexer = Lexer {
        escape: if flags & 1 == 0 { '\\' } else { '`' },
        raw_quotes: flags & 2 != 0,
        raw_escapes: flags & 4 != 0,
        skip_quotes: flags & 8 != 0,
        skip_unset: flags & 16 != 0,
    };
    let result = lexer.expand(word, &Some3(value));
    if let Err(error) = &result {
        assert!(!error.to_string().is_empty());
    }
    if !word.contains(['$', '\'', '"', '\\', '`']) {
        let expanded = result.expect("nothing in it can be wrong");
        assert_eq!(expanded.text, word);
        assert!(expanded.matched.is_empty() && expanded.unmatched.is_empty());
    }
});
