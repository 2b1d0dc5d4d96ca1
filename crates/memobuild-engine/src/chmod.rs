//! Symbolic modes of `--chmod`, by the rules of FreeBSD's setmode(3) with a umask of 0, which BuildKit follows.

const RWX: u32 = 0o777;
const SET_IDS: u32 = 0o6000;
const STICKY: u32 = 0o1000;

/// Classes by name: where their permission bits stand, and all bits that are theirs.
const CLASSES: [(char, u32, u32); 3] = [('u', 6, 0o4700), ('g', 3, 0o2070), ('o', 0, 0o0007)];

/// Applies `u=rwX,go+r`-like clauses to a mode. `None` if the text is not a symbolic mode.
pub(crate) fn apply(text: &str, mode: u32, is_dir: bool) -> Option<u32> {
    let original = mode & 0o7777;
    let executable = is_dir || original & 0o111 != 0;
    text.split(',').try_fold(original, |mode, clause| apply_clause(clause, mode, executable))
}

fn apply_clause(clause: &str, mut mode: u32, executable: bool) -> Option<u32> {
    let start = clause.find(['+', '-', '='])?;
    let (classes, mut rest) = clause.split_at(start);
    let mut who = 0;
    for c in classes.chars() {
        who |= match c {
            'a' => SET_IDS | RWX,
            c => class(c)?.1,
        };
    }
    while let Some(op) = rest.chars().next() {
        let body = rest.get(1..)?;
        let end = body.find(['+', '-', '=']).unwrap_or(body.len());
        let (perms, next) = body.split_at(end);
        rest = next;
        mode = apply_action(op, perms, who, mode, executable)?;
    }
    Some(mode)
}

/// One operator with what follows it. `who` is 0 where no class is named: all of them then.
fn apply_action(op: char, perms: &str, who: u32, mut mode: u32, executable: bool) -> Option<u32> {
    // Set-ID bits and the sticky bit mean nothing for others alone.
    let special = who & !0o0007 != 0 || who == 0;
    let mut scope = if who == 0 { SET_IDS | RWX } else { who };
    let mut bits = 0;
    let mut copies = Vec::new();
    let mut search = false;
    for c in perms.chars() {
        match c {
            'r' => bits |= 0o444,
            'w' => bits |= 0o222,
            'x' => bits |= 0o111,
            // Taking away needs no condition: what has no such bit loses none.
            'X' if op == '-' => bits |= 0o111,
            'X' => search = true,
            's' if special => bits |= SET_IDS,
            't' if special => {
                bits |= STICKY;
                scope |= STICKY;
            }
            's' | 't' => {}
            c => copies.push(class(c)?.0),
        }
    }
    // `g=u` leaves the set-ID bits alone, `g=x` does not.
    if op == '=' && (copies.is_empty() || bits != 0) {
        mode &= !scope;
    }
    match op {
        '-' => mode &= !(bits & scope),
        _ => mode |= bits & scope,
    }
    for from in copies {
        let value = ((mode >> from & 7) * 0o111) & scope;
        mode = match op {
            '+' => mode | value,
            '-' => mode & !value,
            _ => mode & !(scope & RWX) | value,
        };
    }
    if search && executable {
        mode |= 0o111 & scope;
    }
    Some(mode)
}

/// A class by its name: where its bits stand, and all bits that are its own.
fn class(name: char) -> Option<(u32, u32)> {
    CLASSES.iter().find(|(n, ..)| *n == name).map(|(_, shift, bits)| (*shift, *bits))
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
        assert_eq!(apply("+x,-X", 0o644, false), Some(0o644));
        assert_eq!(apply("go=", 0o6755, false), Some(0o4700));
        assert_eq!(apply("755", 0o644, false), None);
        assert_eq!(apply("u+q", 0o644, false), None);
    }

    #[test]
    fn special_bits_belong_to_their_classes() {
        assert_eq!(apply("o+t", 0o755, true), Some(0o755), "not of others alone");
        assert_eq!(apply("o+s", 0o755, true), Some(0o755));
        assert_eq!(apply("u+t", 0o755, true), Some(0o1755));
        assert_eq!(apply("g+s", 0o755, true), Some(0o2755));
        assert_eq!(apply("+s", 0o755, false), Some(0o6755));
        assert_eq!(apply("a=rx", 0o1777, true), Some(0o1555), "the sticky bit goes only by name");
        assert_eq!(apply("a=rxt", 0o777, true), Some(0o1555));
        assert_eq!(apply("a-t", 0o1777, true), Some(0o777));
        assert_eq!(apply("o=", 0o1777, true), Some(0o1770));
        assert_eq!(apply("g=u", 0o2745, false), Some(0o2775), "copies keep set-ID bits");
    }
}
