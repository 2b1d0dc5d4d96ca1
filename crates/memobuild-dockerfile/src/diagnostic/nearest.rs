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

/// Edits from one to the other: insert, delete, replace, or swap two neighbours.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    let mut last_a = None;
    for (i, ca) in a.iter().enumerate() {
        let mut row = Vec::with_capacity(b.len() + 1);
        let mut left = i + 1;
        row.push(left);
        let mut last_b = None;
        for (j, (cb, pair)) in b.iter().zip(above.windows(2)).enumerate() {
            let &[diagonal, up] = pair else { continue };
            let mut best = (diagonal + usize::from(ca != cb)).min(left + 1).min(up + 1);
            if last_a == Some(cb) && last_b == Some(ca) {
                let swapped = j.checked_sub(1).and_then(|j| before.get(j));
                best = swapped.map_or(best, |cost| best.min(cost + 1));
            }
            row.push(best);
            left = best;
            last_b = Some(cb);
        }
        last_a = Some(ca);
        before = std::mem::replace(&mut above, row);
    }
    above.last().copied().unwrap_or(0)
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
        assert_eq!(nearest("RNU", ["ENV", "RUN"], true).as_deref(), Some("RUN"));
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
        assert_eq!(d("rnu", "run"), 1);
        assert_eq!(d("ba", "ab"), 1);
        assert_eq!(d("xba", "yab"), 2);
    }
}
