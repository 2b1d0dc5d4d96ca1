//! Users of an image by name, remembered by the digests of the files that tell: what was resolved once needs no
//! content of the image any more.

use memobuild_tree::{ContentDigest, KeyDigest, KeyHasher, Node, Tree};

use crate::{
    EngineError,
    session::Session,
    users::{self, ExecUser, UserError},
};

/// Namespace of users, by name and by the files that tell.
pub(crate) const USERS: &str = "user.v1";

/// Who a RUN of that `USER` is. The inner error: nobody can be found, which is the step's own failure.
pub(crate) fn exec_user(
    session: &Session<'_>,
    spec: &str,
    tree: &Tree,
) -> Result<Result<ExecUser, UserError>, EngineError> {
    let key = key(0, spec, tree);
    session.share.note_general([(USERS, key)]);
    if let Some(user) = session.store.record_get(USERS, &key)?.as_deref().and_then(decode_user) {
        return Ok(Ok(user));
    }
    let user = users::exec_user(spec, tree, &|file| session.read_file(file));
    if let Ok(user) = &user {
        session.store.record_put(USERS, &key, &encode_user(user), &[])?;
    }
    Ok(user)
}

/// Who owns what `--chown` or a WORKDIR makes.
pub(crate) fn owner(
    session: &Session<'_>,
    spec: &str,
    tree: &Tree,
) -> Result<Result<(u32, u32), UserError>, EngineError> {
    if !users::has_names(spec) {
        return Ok(users::owner(spec, tree, &|file| session.read_file(file)));
    }
    let key = key(1, spec, tree);
    session.share.note_general([(USERS, key)]);
    let known = session.store.record_get(USERS, &key)?;
    if let Some(&[a, b]) = known.as_deref().map(numbers).as_deref() {
        return Ok(Ok((a, b)));
    }
    let owner = users::owner(spec, tree, &|file| session.read_file(file));
    if let Ok((uid, gid)) = owner {
        session.store.record_put(USERS, &key, &[uid.to_le_bytes(), gid.to_le_bytes()].concat(), &[])?;
    }
    Ok(owner)
}

fn key(kind: u64, spec: &str, tree: &Tree) -> KeyDigest {
    let file = |path: &str| -> Option<ContentDigest> {
        match tree.resolve(path.as_bytes(), true).ok()?.node? {
            Node::File(file) => Some(file.content),
            _ => None,
        }
    };
    let mut h = KeyHasher::new("memobuild.user.v1");
    h.u64(kind).value(spec).value(&file("/etc/passwd")).value(&file("/etc/group"));
    h.finish()
}

fn numbers(bytes: &[u8]) -> Vec<u32> {
    bytes.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b)).collect()
}

fn encode_user(user: &ExecUser) -> Vec<u8> {
    let ExecUser { uid, gid, groups, home } = user;
    let count = u32::try_from(groups.len()).unwrap_or(u32::MAX);
    let all = [*uid, *gid, count].into_iter().chain(groups.iter().copied());
    let mut out: Vec<u8> = all.flat_map(u32::to_le_bytes).collect();
    out.extend_from_slice(home.as_bytes());
    out
}

fn decode_user(bytes: &[u8]) -> Option<ExecUser> {
    let (head, rest) = bytes.split_at_checked(12)?;
    let [uid, gid, count] = numbers(head).try_into().ok()?;
    let (groups, home) = rest.split_at_checked(usize::try_from(count).ok()?.checked_mul(4)?)?;
    Some(ExecUser { uid, gid, groups: numbers(groups), home: String::from_utf8(home.to_vec()).ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_round_trip() {
        for groups in [vec![], vec![1, 2, 3]] {
            let user = ExecUser { uid: 7, gid: 8, groups, home: "/home/ä".into() };
            let bytes = encode_user(&user);
            assert_eq!(decode_user(&bytes), Some(user));
            assert_eq!(decode_user(&bytes[..11]), None);
        }
    }
}
