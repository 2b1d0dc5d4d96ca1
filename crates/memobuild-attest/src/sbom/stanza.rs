//! Texts of fields as in mail headers: dpkg's databases (deb822(5)), DEP-5 copyright files, Python's core metadata.

/// One paragraph: fields in their order. A name may occur more than once.
#[derive(Debug, Default)]
pub(super) struct Stanza<'a> {
    fields: Vec<(&'a str, String)>,
}

impl<'a> Stanza<'a> {
    /// The first field of that name, whatever its case; continuation lines are joined by line breaks.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    /// All fields of that name.
    pub(super) fn all<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'s str> {
        self.fields.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    /// The first line of a field, if there is anything on it.
    pub(super) fn line(&self, name: &str) -> Option<&str> {
        let line = self.get(name)?.lines().next()?.trim();
        (!line.is_empty()).then_some(line)
    }

    fn push_line(&mut self, line: &'a str) {
        if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = self.fields.last_mut() {
                value.push('\n');
                value.push_str(line);
            }
        } else if let Some((name, value)) = line.split_once(':') {
            self.fields.push((name.trim(), value.trim().to_owned()));
        }
    }
}

/// The paragraphs of a text, separated by empty lines. Lines that are no fields are passed over.
pub(super) fn stanzas(text: &str) -> impl Iterator<Item = Stanza<'_>> {
    let mut lines = text.lines();
    std::iter::from_fn(move || {
        let mut stanza = Stanza::default();
        for line in lines.by_ref() {
            if !line.trim().is_empty() {
                stanza.push_line(line);
            } else if !stanza.fields.is_empty() {
                break;
            }
        }
        (!stanza.fields.is_empty()).then_some(stanza)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_continue_and_paragraphs_end() {
        let text = "\nA: 1\nB: x\n y\n\tz\nnonsense\na: 2\n\n\nC:\n";
        let found: Vec<_> = stanzas(text).collect();
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].get("b"), Some("x\n y\n\tz"));
        assert_eq!(found[0].all("A").collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(found[1].get("C"), Some(""));
        assert_eq!(found[1].line("C"), None);
    }
}
