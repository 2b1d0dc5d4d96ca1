//! "Did you mean": the nearest of the names that would have been right.

/// The candidate nearest to `value` by edit distance, at most 2; none if one is equal, since
/// then the name is not what is wrong. With `ignore_case` the result takes on the case of
/// `value` if that is all lower or all upper.
pub fn nearest<'a>(value: &str, candidates: impl IntoIterator<Item = &'a str>, ignore_case: bool) -> Option<String> {
    const FARTHEST: usize = 2;
    let fold = |s: &str| if ignore_case { s.to_lowercase() } else { s.to_owned() };
    let wanted: Vec<char> = fold(value).chars().collect();
    let mut best: Option<(usize, String)> = None;
    for candidate in candidates {
        let folded = fold(candidate);
        let chars: Vec<char> = folded.chars().collect();
        if chars == wanted {
            return None;
        }
        let bound = best.as_ref().map_or(FARTHEST + 1, |(d, _)| *d);
        if wanted.len().abs_diff(chars.len()) < bound {
            let distance = distance(&wanted, &chars);
            if distance < bound {
                best = Some((distance, if ignore_case { folded } else { candidate.to_owned() }));
            }
        }
    }
    let (_, found) = best?;
    let upper = ignore_case && value != value.to_lowercase() && value == value.to_uppercase();
    Some(if upper { found.to_uppercase() } else { found })
}

/// Levenshtein distance.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.iter().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, cb) in row.iter_mut().skip(1).zip(b) {
            let best = (diagonal + usize::from(ca != cb)).min(left + 1).min(*cell + 1);
            diagonal = std::mem::replace(cell, best);
            left = best;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_near_names() {
        let names = ["FROM", "RUN", "COPY", "CMD"];
        assert_eq!(nearest("FRM", names, true).as_deref(), Some("FROM"));
        assert_eq!(nearest("frm", names, true).as_deref(), Some("from"));
        assert_eq!(nearest("frm", names, false), None);
        assert_eq!(nearest("COPPPPY", names, true), None);
        assert_eq!(nearest("run", names, true), None);
        assert_eq!(nearest("", ["ab"], false).as_deref(), Some("ab"));
        assert_eq!(nearest("cahce", ["bind", "cache"], false).as_deref(), Some("cache"));
    }

    #[test]
    fn distances() {
        let d = |a: &str, b: &str| distance(&a.chars().collect::<Vec<_>>(), &b.chars().collect::<Vec<_>>());
        assert_eq!(d("kitten", "sitting"), 3);
        assert_eq!(d("", "abc"), 3);
        assert_eq!(d("abc", ""), 3);
        assert_eq!(d("abc", "abc"), 0);
    }
}
