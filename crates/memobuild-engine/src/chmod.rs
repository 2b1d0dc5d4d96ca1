//! Symbolic modes of `--chmod`, as chmod(1) takes them (POSIX, with a umask of 0).

/// Applies `u=rwX,go+r`-like clauses to a mode. `None` if the text is not a symbolic mode.
pub(crate) fn apply(text: &str, mode: u32, is_dir: bool) -> Option<u32> {
    let original = mode & 0o7777;
    text.split(',').try_fold(original, |mode, clause| apply_clause(clause, mode, original, is_dir))
}

const CLASSES: [(char, u32); 3] = [('u', 6), ('g', 3), ('o', 0)];

fn apply_clause(clause: &str, mut mode: u32, original: u32, is_dir: bool) -> Option<u32> {
    let start = clause.find(['+', '-', '='])?;
    let (who, mut rest) = clause.split_at(start);
    let mut classes = Vec::new();
    for c in who.chars() {
        match c {
            'a' => classes.extend(CLASSES),
            c => classes.push(*CLASSES.iter().find(|(name, _)| *name == c)?),
        }
    }
    if classes.is_empty() {
        classes.extend(CLASSES);
    }
    while let Some(op) = rest.chars().next() {
        let body = rest.get(1..)?;
        let end = body.find(['+', '-', '=']).unwrap_or(body.len());
        let (perms, next) = body.split_at(end);
        rest = next;
        let copied = perms.chars().next().and_then(|c| CLASSES.iter().find(|(name, _)| *name == c));
        if copied.is_some() && perms.len() != 1 {
            return None;
        }
        for (class, shift) in &classes {
            let mut bits = 0;
            let mut special = 0;
            if let Some((_, from)) = copied {
                bits = mode >> from & 7;
            } else {
                for c in perms.chars() {
                    match c {
                        'r' => bits |= 4,
                        'w' => bits |= 2,
                        'x' => bits |= 1,
                        'X' => bits |= u32::from(is_dir || original & 0o111 != 0),
                        's' if *class == 'u' => special |= 0o4000,
                        's' if *class == 'g' => special |= 0o2000,
                        's' => {}
                        't' => special |= 0o1000,
                        _ => return None,
                    }
                }
            }
            let bits = bits << shift | special;
            let class_special = match class {
                'u' => 0o4000,
                'g' => 0o2000,
                _ => 0o1000,
            };
            mode = match op {
                '+' => mode | bits,
                '-' => mode & !bits,
                _ => mode & !(7 << shift) & !class_special | bits,
            };
        }
    }
    Some(mode)
}

#[cfg(test)]
mod tests {
    use super::apply;

    #[test]
    fn clauses_are_applied_in_order() {
        assert_eq!(apply("u=rwX,go=rX", 0o600, false), Some(0o644));
        assert_eq!(apply("u=rwX,go=rX", 0o700, false), Some(0o755));
        assert_eq!(apply("u=rwX,go=rX", 0o600, true), Some(0o755));
        assert_eq!(apply("a+x", 0o644, false), Some(0o755));
        assert_eq!(apply("go-rwx", 0o755, false), Some(0o700));
        assert_eq!(apply("+t,u+s", 0o755, true), Some(0o5755));
        assert_eq!(apply("g=u", 0o741, false), Some(0o771));
        assert_eq!(apply("u+w-x", 0o555, false), Some(0o655));
        assert_eq!(apply("755", 0o644, false), None);
        assert_eq!(apply("u+q", 0o644, false), None);
    }
}
