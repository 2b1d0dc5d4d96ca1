//! One comma-separated record, as `--output`, `--secret` and their like take it.

/// Splits at commas. A field that begins with `"` runs to the next lone `"` and may hold commas; `""` in it is one
/// quote. Elsewhere a quote is an error, as in Go's `encoding/csv`, which docker reads these flags with.
pub(super) fn fields(text: &str) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let (field, tail) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_field(quoted)?,
            None => {
                let (field, tail) = split_at_comma(rest);
                if field.contains('"') {
                    return Err(format!(
                        "a quote in the middle of {field:?}: quote the whole field, as in '\"a=b,c\"'"
                    ));
                }
                (field.to_owned(), tail)
            }
        };
        fields.push(field);
        match tail {
            Some(tail) => rest = tail,
            None => return Ok(fields),
        }
    }
}

fn split_at_comma(text: &str) -> (&str, Option<&str>) {
    text.split_once(',').map_or((text, None), |(field, tail)| (field, Some(tail)))
}

/// `text` stands behind the opening quote.
fn quoted_field(text: &str) -> Result<(String, Option<&str>), String> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let (part, tail) = rest.split_once('"').ok_or("a quote is opened and never closed")?;
        field.push_str(part);
        if let Some(more) = tail.strip_prefix('"') {
            field.push('"');
            rest = more;
        } else if tail.is_empty() {
            return Ok((field, None));
        } else if let Some(next) = tail.strip_prefix(',') {
            return Ok((field, Some(next)));
        } else {
            return Err(format!("{tail:?} behind a closing quote: expected a comma"));
        }
    }
}

/// Splits `key=value`; the key in lower case without blanks around it.
pub(super) fn key_value(field: &str) -> Result<(String, &str), String> {
    let (key, value) = field.split_once('=').ok_or_else(|| format!("{field:?}: expected KEY=VALUE"))?;
    Ok((key.trim().to_ascii_lowercase(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_split_as_go_does() {
        let f = |t: &str| fields(t).map(|v| v.join("|"));
        assert_eq!(f("type=oci,dest=a b"), Ok("type=oci|dest=a b".into()));
        assert_eq!(f("type=oci,\"name=a,b\",x=1"), Ok("type=oci|name=a,b|x=1".into()));
        assert_eq!(f("\"say \"\"hi\"\"\""), Ok("say \"hi\"".into()));
        assert_eq!(f("a,,b,"), Ok("a||b|".into()));
        assert_eq!(f(""), Ok(String::new()));
        assert!(f("a=\"b\"").is_err());
        assert!(f("\"open").is_err());
        assert!(f("\"a\"b").is_err());
    }
}
