//! Who a step runs as and who owns what it copies: names looked up in the image's `/etc/passwd` and `/etc/group`, as
//! BuildKit does it (moby/sys `user.GetExecUser`, and its own look-up for `--chown`).

use memobuild_tree::{Node, Tree};

/// The files are cut off behind this many bytes, as BuildKit's are.
const MAX_FILE: usize = 10 << 20;

/// A user as RUN needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExecUser {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Supplementary groups, the primary one in front.
    pub(crate) groups: Vec<u32>,
    /// Home directory; `/` where the user is not listed.
    pub(crate) home: String,
}

/// A user or group that can't be found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UserError {
    #[error("unable to find user {0}: no matching entries in passwd file")]
    NoUser(String),
    #[error("unable to find group {0}: no matching entries in group file")]
    NoGroup(String),
    #[error("uids and gids must be in range 0-{max}: {0}", max = i32::MAX)]
    Range(String),
    #[error("can't read {0}: {1}")]
    Read(&'static str, String),
}

/// Reads the bytes of a file of the tree.
pub(crate) type ReadFile<'a> = &'a dyn Fn(&memobuild_tree::File) -> Result<Vec<u8>, String>;

struct Passwd {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

struct Group {
    name: String,
    gid: u32,
    members: Vec<String>,
}

fn lines(tree: &Tree, path: &'static str, read: ReadFile<'_>) -> Result<Vec<Vec<String>>, UserError> {
    let Ok(found) = tree.resolve(path.as_bytes(), true) else { return Ok(Vec::new()) };
    let Some(Node::File(file)) = found.node else { return Ok(Vec::new()) };
    let mut bytes = read(&file).map_err(|e| UserError::Read(path, e))?;
    bytes.truncate(MAX_FILE);
    let text = String::from_utf8_lossy(&bytes);
    let fields = |line: &str| line.split(':').map(|f| f.trim().to_owned()).collect();
    Ok(text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')).map(fields).collect())
}

fn field(line: &[String], index: usize) -> &str {
    line.get(index).map_or("", String::as_str)
}

fn passwd(tree: &Tree, read: ReadFile<'_>) -> Result<Vec<Passwd>, UserError> {
    let entry = |line: &Vec<String>| Passwd {
        name: field(line, 0).to_owned(),
        uid: field(line, 2).parse().unwrap_or(0),
        gid: field(line, 3).parse().unwrap_or(0),
        home: field(line, 5).to_owned(),
    };
    Ok(lines(tree, "/etc/passwd", read)?.iter().map(entry).collect())
}

fn group(tree: &Tree, read: ReadFile<'_>) -> Result<Vec<Group>, UserError> {
    let entry = |line: &Vec<String>| Group {
        name: field(line, 0).to_owned(),
        gid: field(line, 2).parse().unwrap_or(0),
        members: field(line, 3).split(',').map(|m| m.trim().to_owned()).collect(),
    };
    Ok(lines(tree, "/etc/group", read)?.iter().map(entry).collect())
}

fn number(text: &str) -> Result<Option<u32>, UserError> {
    match text.parse::<i64>() {
        Ok(n) if (0..=i64::from(i32::MAX)).contains(&n) => Ok(u32::try_from(n).ok()),
        Ok(_) => Err(UserError::Range(text.to_owned())),
        Err(_) => Ok(None),
    }
}

/// Resolves `USER`: empty, `name`, `uid`, `name:group`, `uid:gid` and all mixtures.
pub(crate) fn exec_user(spec: &str, tree: &Tree, read: ReadFile<'_>) -> Result<ExecUser, UserError> {
    let (user_part, group_part) = spec.split_once(':').unwrap_or((spec, ""));
    let mut user = ExecUser { uid: 0, gid: 0, groups: Vec::new(), home: "/".into() };
    let uid = number(user_part)?;
    let accounts = passwd(tree, read)?;
    let found = accounts.iter().find(|entry| match (user_part, uid) {
        ("", _) => entry.uid == 0,
        // A number is never taken for a name.
        (_, Some(uid)) => entry.uid == uid,
        (name, None) => entry.name == name,
    });
    let mut name = String::new();
    match (found, uid) {
        (Some(entry), _) => {
            name.clone_from(&entry.name);
            user = ExecUser { uid: entry.uid, gid: entry.gid, groups: Vec::new(), home: entry.home.clone() };
        }
        (None, Some(uid)) => user.uid = uid,
        (None, None) if user_part.is_empty() => {}
        (None, None) => return Err(UserError::NoUser(user_part.to_owned())),
    }
    if user.home.is_empty() {
        user.home = "/".into();
    }
    let groups = group(tree, read)?;
    if group_part.is_empty() {
        if !name.is_empty() {
            user.groups = groups.iter().filter(|g| g.members.contains(&name)).map(|g| g.gid).collect();
        }
    } else {
        let gid = number(group_part)?;
        match (groups.iter().find(|g| g.name == group_part || gid == Some(g.gid)), gid) {
            (Some(entry), _) => user.gid = entry.gid,
            (None, Some(gid)) => user.gid = gid,
            (None, None) => return Err(UserError::NoGroup(group_part.to_owned())),
        }
    }
    user.groups.retain(|gid| *gid != user.gid);
    user.groups.insert(0, user.gid);
    Ok(user)
}

/// Resolves `--chown`, and the owner that `WORKDIR` takes from `USER`: a name that is not listed is 0, as BuildKit has
/// it; a number without a group is its own group.
pub(crate) fn owner(spec: &str, tree: &Tree, read: ReadFile<'_>) -> Result<(u32, u32), UserError> {
    let (user_part, group_part) = match spec.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (spec, None),
    };
    let (mut uid, mut gid) = (0, 0);
    if let Some(id) = number(user_part)? {
        (uid, gid) = (id, id);
    } else if let Some(entry) = passwd(tree, read)?.into_iter().find(|entry| entry.name == user_part) {
        (uid, gid) = (entry.uid, entry.gid);
    }
    match group_part {
        None | Some("") => {}
        Some(part) => match number(part)? {
            Some(id) => gid = id,
            None => {
                if let Some(entry) = group(tree, read)?.into_iter().find(|g| g.name == part) {
                    gid = entry.gid;
                }
            }
        },
    }
    Ok((uid, gid))
}

/// Whether `--chown` names a user or group that only the image's files can tell the number of.
pub(crate) fn has_names(spec: &str) -> bool {
    spec.split(':').any(|part| !part.is_empty() && part.parse::<i64>().is_err())
}

#[cfg(test)]
mod tests {
    use super::*;
    use memobuild_tree::{ContentDigest, File, Meta, Mtime};

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\n88:x:89:90::/n:/bin/sh\napp:x:1500:1600::/home/app:/bin/sh\n# c\nshort\n";
    const GROUP: &str = "root:x:0:\ngrp:x:1700:app,other\n";

    fn with_tree<T>(run: impl FnOnce(&Tree, ReadFile<'_>) -> T) -> T {
        let mut tree = Tree::default();
        let meta = || Meta::new(0o755, Mtime::default());
        for (path, text) in [("/etc/passwd", PASSWD), ("/etc/group", GROUP)] {
            let content = ContentDigest::of(text.as_bytes());
            let file = File { meta: meta(), size: text.len() as u64, content, link: None };
            tree.put(path.as_bytes(), Node::File(file), &meta);
        }
        run(&tree, &|file| {
            let all = [PASSWD, GROUP];
            let text = all.iter().find(|t| ContentDigest::of(t.as_bytes()) == file.content);
            text.map(|t| t.as_bytes().to_vec()).ok_or_else(|| "not there".into())
        })
    }

    fn exec(spec: &str) -> String {
        with_tree(|tree, read| match exec_user(spec, tree, read) {
            Ok(u) => format!("{}:{} {:?} {}", u.uid, u.gid, u.groups, u.home),
            Err(e) => e.to_string(),
        })
    }

    #[test]
    fn users_are_found_by_name_and_number() {
        assert_eq!(exec(""), "0:0 [0] /root");
        assert_eq!(exec("app"), "1500:1600 [1600, 1700] /home/app");
        assert_eq!(exec("1500"), "1500:1600 [1600, 1700] /home/app");
        assert_eq!(exec("app:grp"), "1500:1700 [1700] /home/app");
        assert_eq!(exec("77:grp"), "77:1700 [1700] /");
        assert_eq!(exec("77"), "77:0 [0] /");
        assert_eq!(exec("88"), "88:0 [0] /");
        assert_eq!(exec("nobody"), "unable to find user nobody: no matching entries in passwd file");
        assert_eq!(exec("1:none"), "unable to find group none: no matching entries in group file");
    }

    #[test]
    fn owners_default_to_root_and_numbers_to_their_own_group() {
        let own = |spec: &str| with_tree(|tree, read| owner(spec, tree, read));
        assert_eq!(own("app"), Ok((1500, 1600)));
        assert_eq!(own("app:grp"), Ok((1500, 1700)));
        assert_eq!(own("5"), Ok((5, 5)));
        assert_eq!(own("5:6"), Ok((5, 6)));
        assert_eq!(own("unknown"), Ok((0, 0)));
        assert!(own("-1").is_err());
        for (spec, named) in
            [("app", true), ("5:grp", true), ("app:", true), ("5", false), ("5:6", false), (":7", false)]
        {
            assert_eq!(has_names(spec), named, "{spec}");
        }
    }
}
