//! Queries: a few words with numbers or ids. A word that is misspelt must not mean: with the defaults.

use std::ops::RangeInclusive;

use axum::http::Uri;

use crate::reply::ApiError;

/// The words of a query.
pub(super) struct Query<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Query<'a> {
    /// Takes a query apart in which these words may stand, each once.
    pub(super) fn parse(uri: &'a Uri, known: &[&str]) -> Result<Self, ApiError> {
        let mut words: Vec<(&str, &str)> = Vec::new();
        for word in uri.query().unwrap_or_default().split('&').filter(|word| !word.is_empty()) {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            if !known.contains(&name) || words.iter().any(|(known, _)| *known == name) {
                let message = format!("expected {}, each once at most", known.join(", "));
                return Err(ApiError::bad("invalid_query", message));
            }
            words.push((name, value));
        }
        Ok(Self(words))
    }

    /// The value of a word.
    pub(super) fn text(&self, name: &str) -> Option<&'a str> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }

    /// The number of a word.
    pub(super) fn number(&self, name: &str, range: RangeInclusive<i64>) -> Result<Option<i64>, ApiError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        let number = text.parse().ok().filter(|n| digits && range.contains(n)).ok_or_else(|| {
            let message = format!("{name} is not a whole number from {} to {}", range.start(), range.end());
            ApiError::bad("invalid_query", message)
        })?;
        Ok(Some(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_numbers() {
        let number = |query: &str| {
            let uri: Uri = format!("/x?{query}").parse().unwrap();
            Query::parse(&uri, &["limit", "before"]).ok()?.number("limit", 1..=200).ok()
        };
        assert_eq!(number(""), Some(None));
        assert_eq!(number("limit=20&before=7"), Some(Some(20)));
        for bad in ["limit=0", "limit=201", "limit=-1", "limit=+1", "limit=", "limit", "limt=1", "limit=1&limit=1"] {
            assert_eq!(number(bad), None, "{bad}");
        }
    }
}
