//! Making a store whole again: what is damaged goes, then what needs it, until nothing that is left lacks anything.
//!
//! No prune runs meanwhile, and nobody can touch a bundle or blob anew, so that what is looked at stays as it is seen.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::PoisonError,
};

use memobuild_tree::BundleId;
use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior};

use super::{
    look::{Check, Found, Subject, is_there, path_of},
    report::{Finding, Kind, Outcome, Progress},
    rows::{self, Table},
};
use crate::{
    Ref, Store,
    bundle::Bundle,
    clean::{is_half_format, remove_leftover},
    digest_map::DigestSet,
    error::Result,
    gc::remove_unused,
    index::{RawTag, rescue_tags},
    inventory::{file_name, list},
    layout::{UNKNOWN, rename_new},
    lease::Held,
    records::{TAG_NS, sum},
};

/// Why something is left.
const IN_USE: &str = "a running build uses it: repair again when it has ended";

/// Repairs what was found. Gives that, and what followed from it, with what became of each.
pub(super) fn repair(store: &Store, check: &Check<'_>, found: Vec<Found>) -> Result<Vec<Finding>> {
    // What is looked at again is not counted twice.
    let progress = Progress::default();
    let mut repair = Repair { store, check: Check { progress: &progress, ..*check }, done: Vec::new() };
    let (directories, found) = split(found, |subject| matches!(subject, Subject::Directory(_)));
    for found in directories {
        let made = make_directory(&found.path(check.layout));
        repair.note(&found, made.map(|()| "made".into()));
    }
    let _no_prune = store.lock("gc", true)?;
    let _no_sweep = store.lock("sweep", true)?;
    // Before anybody asks who lives: whatever lies among the leases would go as one of a dead process.
    let (unknown, found) = split(found, |subject| matches!(subject, Subject::Unknown(_)));
    for found in unknown {
        let how = repair.remove(&found);
        repair.note(&found, how);
    }
    let (index, found) = split(found, |subject| *subject == Subject::Index);
    for found in index {
        set_index_aside(store, &repair.check)?;
        repair.note(&found, Ok("set aside".into()));
    }
    let (things, found) = split(found, |subject| matches!(subject, Subject::Thing(_)));
    let (_, found) = split(found, Subject::is_row);
    {
        let held = Held::take(check.layout)?;
        if repair.remove_things(things, &held) {
            repair.remove_needy(&held)?;
        }
        // Looked for again: there may be a new index, and other rows that lead nowhere now.
        let rows = rows::scan(&repair.check)?;
        repair.remove_rows(rows, &held)?;
    }
    let (_, found) = split(found, |subject| matches!(subject, Subject::OldIndex(_)));
    repair.remove_old_indexes()?;
    for found in found {
        let how = repair.remove(&found);
        repair.note(&found, how);
    }
    Ok(repair.done)
}

/// Those whose subject it is true of, and the others.
fn split(found: Vec<Found>, of: impl Fn(&Subject) -> bool) -> (Vec<Found>, Vec<Found>) {
    found.into_iter().partition(|found| of(&found.subject))
}

fn make_directory(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    // As when a store is made: users inside a step reach the blobs through a mount.
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

/// Has the index replaced as any build does that meets the damage: names of images that can be read are kept.
fn set_index_aside(store: &Store, check: &Check<'_>) -> Result<()> {
    // Looked at once more: it may have been replaced meanwhile.
    store.index().with("repair", |connection| {
        let mut faults = rows::read(check, connection)?.into_iter().filter(|found| found.subject == Subject::Index);
        match faults.next() {
            None => Ok(()),
            Some(fault) => {
                let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
                Err(rusqlite::Error::SqliteFailure(code, Some(fault.what)))
            }
        }
    })
}

struct Repair<'a> {
    store: &'a Store,
    check: Check<'a>,
    done: Vec<Finding>,
}

impl Repair<'_> {
    fn note(&mut self, found: &Found, result: io::Result<String>) {
        let outcome = match result {
            Ok(how) => Outcome::Repaired(how),
            Err(why) => Outcome::Left(why.to_string()),
        };
        self.done.push(Finding { outcome, ..found.finding(self.check.layout) });
    }

    /// Removes bundles and blobs; says whether one went.
    fn remove_things(&mut self, found: Vec<Found>, held: &Held) -> bool {
        let mut gone = DigestSet::default();
        for found in found {
            let Subject::Thing(name) = &found.subject else { continue };
            let result = match found.kind {
                Kind::Unreadable => Err(io::Error::other("it may be whole")),
                _ if held.refs.contains(name) => Err(io::Error::other(IN_USE)),
                _ => fs::remove_file(path_of(self.check.layout, name)),
            };
            if result.is_ok() {
                gone.insert(*name);
            }
            self.note(&found, result.map(|()| "removed".into()));
        }
        self.forget(&gone);
        !gone.is_empty()
    }

    /// What this process knows of what is gone.
    fn forget(&self, gone: &DigestSet<Ref>) {
        self.store.bundles().forget_all(&|id| gone.contains(&Ref::Bundle(*id)));
        self.store.bundles().doubt();
        let mut blobs = self.store.whole_blobs().write().unwrap_or_else(PoisonError::into_inner);
        blobs.retain(|digest| !gone.contains(&Ref::Content(*digest)));
        let mut blobs = self.store.whole_oci_blobs().write().unwrap_or_else(PoisonError::into_inner);
        blobs.retain(|digest| !gone.contains(&Ref::Oci(*digest)));
    }

    /// Removes bundles that lack what went, and so on.
    fn remove_needy(&mut self, held: &Held) -> Result<()> {
        loop {
            let mut needy = Vec::new();
            for path in list(&self.check.layout.bundles())? {
                let Ok(id) = BundleId::from_hex(&file_name(&path)) else { continue };
                // One that can't be read was dealt with before.
                let Ok(Some(bundle)) = Bundle::read(id, &path) else { continue };
                let known = |done: &Finding| done.kind == Kind::IncompleteBundle && done.at.ends_with(&id.hex());
                if let Some(what) = self.check.lacks(&bundle)?
                    && !self.done.iter().any(known)
                {
                    needy.push(Found::new(Subject::Thing(Ref::Bundle(id)), Kind::IncompleteBundle, what));
                }
            }
            if !self.remove_things(needy, held) {
                return Ok(());
            }
        }
    }

    /// Removes rows that are damaged or lead nowhere.
    fn remove_rows(&mut self, found: Vec<Found>, held: &Held) -> Result<()> {
        let (index, found) = split(found, |subject| *subject == Subject::Index);
        index.iter().for_each(|found| self.note(found, Err(io::Error::other("it could not be replaced"))));
        let (in_use, found): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|found| found.lacks.iter().any(|name| held.refs.contains(name)));
        in_use.iter().for_each(|found| self.note(found, Err(io::Error::other(IN_USE))));
        let check = self.check;
        let removed = self.store.index().with("repair", |connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let mut removed = vec![false; found.len()];
            for (found, removed) in found.iter().zip(&mut removed) {
                let (table, id) = match found.subject {
                    Subject::Record(id) => (Table::Records, id),
                    Subject::Tag(id) => (Table::Tags, id),
                    _ => continue,
                };
                // It may have been written anew since it was read.
                let now = transaction
                    .prepare_cached(table.select_one())?
                    .query_row([id], |row| rows::wrong(&check, table, row))
                    .optional()?
                    .flatten();
                *removed = match now {
                    Some(now) if now == *found => transaction.prepare_cached(table.delete_one())?.execute([id])? > 0,
                    _ => false,
                };
            }
            transaction.commit()?;
            Ok(removed)
        })?;
        for (found, removed) in found.iter().zip(removed) {
            let how = if removed { "removed" } else { "it is another by now" };
            self.note(found, Ok(how.into()));
        }
        Ok(())
    }

    /// Takes what names of images there are out of indexes that were set aside, and removes these.
    fn remove_old_indexes(&mut self) -> Result<()> {
        let mut paths = list(&self.check.layout.dir)?;
        paths.retain(|path| file_name(path).starts_with("index.corrupt-"));
        // A log comes after what it belongs to, and is gone by then.
        paths.sort();
        for path in paths.into_iter().filter(|path| is_there(path)) {
            let what = "an index that was found damaged and set aside";
            let found = Found::new(Subject::OldIndex(path.clone()), Kind::OldIndex, what);
            let (kept, lost) = self.take_names(&path)?;
            let mut how = "removed".to_owned();
            if !kept.is_empty() {
                how += &format!("; names of images taken over from it: {}", kept.join(", "));
            }
            if !lost.is_empty() {
                how += &format!("; names in it of images that are not all there any more: {}", lost.join(", "));
            }
            let result = ["", "-wal", "-shm"].iter().try_for_each(|suffix| {
                let mut part = path.clone().into_os_string();
                part.push(suffix);
                match fs::remove_file(part) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
                    _ => Ok(()),
                }
            });
            self.note(&found, result.map(|()| how));
        }
        Ok(())
    }

    /// Names that only this index has: those that were taken over, and those whose images are not whole.
    fn take_names(&self, path: &Path) -> Result<(Vec<String>, Vec<String>)> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let tags = Connection::open_with_flags(path, flags).map(|old| rescue_tags(&old)).unwrap_or_default();
        let whole = |(name, value, refs, stored): &RawTag| *stored == sum(TAG_NS, name.as_bytes(), value, refs);
        let (mut kept, mut lost) = (Vec::new(), Vec::new());
        for tag in tags.into_iter().filter(whole) {
            let (name, value, refs, stored) = &tag;
            let there = |name: &Ref| is_there(&path_of(self.check.layout, name));
            let complete = Ref::decode_all(refs).iter().all(there);
            let new = self.store.index().with("repair", |connection| {
                let known = "SELECT 1 FROM tags WHERE name = ?1";
                if connection.prepare_cached(known)?.exists([name])? {
                    return Ok(false);
                }
                if complete {
                    let sql = "INSERT INTO tags (name, value, refs, sum) VALUES (?1, ?2, ?3, ?4)";
                    connection.prepare_cached(sql)?.execute((name, value, refs, stored))?;
                }
                Ok(true)
            })?;
            match (new, complete) {
                (false, _) => {}
                (true, true) => kept.push(name.clone()),
                (true, false) => lost.push(name.clone()),
            }
        }
        Ok((kept, lost))
    }

    /// Removes a file that nothing refers to.
    fn remove(&self, found: &Found) -> io::Result<String> {
        let path = found.path(self.check.layout);
        if found.kind == Kind::Unreadable {
            return Err(io::Error::other("it may be whole"));
        }
        match &found.subject {
            Subject::Unknown(_) => return self.move_away(&path).map(|to| format!("moved to {}", to.display())),
            Subject::Scratch(_) => remove_leftover(self.check.layout, &path)?,
            Subject::Partial(_) => remove_unused([path].into_iter(), false).map(drop).map_err(io::Error::other)?,
            // It went when it was asked who lives.
            Subject::Lease(_) if !is_there(&path) => {}
            Subject::HalfFormat(_) if !is_half_format(&path) => {}
            _ => fs::remove_file(&path)?,
        }
        Ok("removed".into())
    }

    /// Moves what the store did not make to a place of its own.
    fn move_away(&self, path: &Path) -> io::Result<PathBuf> {
        let dir = self.check.layout.dir.join(UNKNOWN);
        fs::create_dir_all(&dir)?;
        let name = path.file_name().unwrap_or_default();
        for number in 0u32.. {
            let mut to = name.to_owned();
            if number > 0 {
                to.push(format!(".{number}"));
            }
            let to = dir.join(to);
            if !is_there(&to) && rename_new(path, &to)? {
                return Ok(Path::new(UNKNOWN).join(to.file_name().unwrap_or_default()));
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }
}
