//! JSON as Go's `encoding/json` writes it, since digests are taken of the bytes: `<`, `>`, `&`, U+2028 and U+2029 are
//! escaped, and indented texts use two spaces.

use std::{collections::BTreeMap, io};

use serde::Serialize;
use serde_json::{
    Value,
    ser::{CharEscape, CompactFormatter, Formatter, PrettyFormatter},
};

use crate::ImageConfig;

/// Compact, as `json.Marshal` writes (configs, `index.json`, `manifest.json`).
pub fn compact<T: Serialize + ?Sized>(value: &T) -> serde_json::Result<Vec<u8>> {
    write(value, GoFormatter(CompactFormatter))
}

/// Indented by two spaces, as `json.MarshalIndent(v, "", "  ")` writes (manifests and nested indexes).
pub fn pretty<T: Serialize + ?Sized>(value: &T) -> serde_json::Result<Vec<u8>> {
    write(value, GoFormatter(PrettyFormatter::with_indent(b"  ")))
}

fn write<T: Serialize + ?Sized>(value: &T, formatter: impl Formatter) -> serde_json::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(1024);
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, formatter))?;
    Ok(out)
}

/// The bytes of a config, which its digest is taken of: top-level fields in byte order, `created` and `history` always
/// there, since BuildKit patches them into a Go map.
pub fn config(config: &ImageConfig) -> serde_json::Result<Vec<u8>> {
    let mut fields = BTreeMap::from([("created".to_owned(), Value::Null), ("history".to_owned(), Value::Null)]);
    if let Value::Object(map) = serde_json::to_value(config)? {
        fields.extend(map);
    }
    compact(&fields)
}

struct GoFormatter<F>(F);

macro_rules! delegate {
    ($($name:ident($($arg:ident: $ty:ty),*);)*) => {
        $(fn $name<W: ?Sized + io::Write>(&mut self, writer: &mut W, $($arg: $ty),*) -> io::Result<()> {
            self.0.$name(writer, $($arg),*)
        })*
    };
}

impl<F: Formatter> Formatter for GoFormatter<F> {
    delegate! {
        begin_array();
        end_array();
        begin_array_value(first: bool);
        end_array_value();
        begin_object();
        end_object();
        begin_object_key(first: bool);
        end_object_key();
        begin_object_value();
        end_object_value();
        write_char_escape(escape: CharEscape);
    }

    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let special = |c: char| matches!(c, '<' | '>' | '&' | '\u{2028}' | '\u{2029}');
        let mut rest = fragment;
        while let Some(at) = rest.find(special) {
            let (plain, tail) = rest.split_at(at);
            writer.write_all(plain.as_bytes())?;
            let mut chars = tail.chars();
            if let Some(c) = chars.next() {
                write!(writer, "\\u{:04x}", c as u32)?;
            }
            rest = chars.as_str();
        }
        writer.write_all(rest.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_what_go_escapes() {
        let text = compact("a && b <c>\u{2028}\n\"ü\u{1}").unwrap();
        let expected = r#""a \u0026\u0026 b \u003cc\u003e\u2028\n\"ü\u0001""#;
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }

    #[test]
    fn configs_are_written_in_buildkits_order() {
        let text = r#"{"os":"linux","variant":"v7","architecture":"arm","config":{"Shell":["sh"],"Env":["A=1"],"X":1},
            "rootfs":{"type":"layers","diff_ids":[]},"docker_version":"1"}"#;
        let expected = concat!(
            r#"{"architecture":"arm","config":{"Env":["A=1"],"Shell":["sh"],"X":1},"created":null,"#,
            r#""docker_version":"1","history":null,"os":"linux","rootfs":{"type":"layers","diff_ids":[]},"variant":"v7"}"#
        );
        let parsed: ImageConfig = serde_json::from_str(text).unwrap();
        assert_eq!(String::from_utf8(config(&parsed).unwrap()).unwrap(), expected);
    }

    #[test]
    fn indents_by_two_spaces() {
        let value = serde_json::json!({"a": [1], "b": {}});
        let expected = "{\n  \"a\": [\n    1\n  ],\n  \"b\": {}\n}";
        assert_eq!(String::from_utf8(pretty(&value).unwrap()).unwrap(), expected);
    }
}
