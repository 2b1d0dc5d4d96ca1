//! The check of a whole store: every byte read, every reference followed. It changes nothing.

use std::{fs::File, io, path::PathBuf, sync::atomic::AtomicUsize};

use crate::{
    Ref, Store,
    blobs::{damaged, hash_file},
    bundle::Bundle,
    error::{Result, StoreError},
    inventory::Inventory,
    oci::sha256_file,
};

/// Something that is not as it should be. What is damaged is set aside by itself when it is next used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Where.
    pub path: PathBuf,
    /// What is wrong.
    pub what: String,
}

impl Store {
    /// Reads every bundle and blob and compares them with their names; follows every reference. Takes as long as
    /// reading the whole store does.
    pub fn check(&self) -> Result<Vec<Finding>> {
        // What is being written or collected meanwhile would look like damage.
        let _one = self.lock("gc", true)?;
        let quick: Vec<String> = self.index().with("check", |c| {
            let mut statement = c.prepare("PRAGMA quick_check")?;
            statement.query_map([], |row| row.get(0))?.collect()
        })?;
        let index = self.layout().index();
        let mut findings = Vec::new();
        let mut add = |path: PathBuf, what: String| findings.push(Finding { path, what });
        for line in quick.into_iter().filter(|line| line != "ok") {
            add(index.clone(), line);
        }
        // Rows before files: what a row names was on disk before the row was written.
        let (records, tags) = (self.record_rows()?, self.tag_rows()?);
        let inventory = Inventory::take(self.layout())?;
        for (kind, row) in records.iter().map(|r| ("record", r)).chain(tags.iter().map(|r| ("tag", r))) {
            if !row.whole {
                add(index.clone(), format!("{kind} {} does not have its checksum", row.name));
            }
            for name in row.refs.iter().filter(|name| !inventory.things.contains_key(name)) {
                add(index.clone(), format!("{kind} {} refers to {name:?}, which is not there", row.name));
            }
        }
        for item in &inventory.damaged {
            add(item.path.clone(), "set aside as damaged, or not a name that the store gives".into());
        }
        for (name, item) in &inventory.things {
            let result = match name {
                Ref::Bundle(id) => check_bundle(&inventory, id, &item.path, &mut add),
                Ref::Content(digest) => read(&item.path, |file| Ok(hash_file(file)?.0 == *digest)),
                Ref::Oci(digest) => read(&item.path, |file| Ok(sha256_file(file)? == *digest)),
            };
            match result {
                Err(StoreError::Corrupt { detail, .. }) => add(item.path.clone(), detail),
                other => other?,
            }
        }
        findings.sort_by(|a, b| (&a.path, &a.what).cmp(&(&b.path, &b.what)));
        Ok(findings)
    }
}

fn read(path: &std::path::Path, same: impl FnOnce(&File) -> io::Result<bool>) -> Result<()> {
    let file = File::open(path).map_err(StoreError::io("open", path))?;
    if same(&file).map_err(StoreError::io("read", path))? { Ok(()) } else { Err(damaged(path)) }
}

fn check_bundle(
    inventory: &Inventory,
    id: &memobuild_tree::BundleId,
    path: &std::path::Path,
    add: &mut dyn FnMut(PathBuf, String),
) -> Result<()> {
    let Some(bundle) = Bundle::read(*id, path)? else { return Ok(()) };
    let open = AtomicUsize::new(0);
    bundle.read_diff(&open)?;
    for number in 0..bundle.tables.len() as u32 {
        bundle.read_packed(&open, number)?;
    }
    for name in inventory.refs_of(&Ref::Bundle(*id)) {
        if !inventory.things.contains_key(&name) {
            add(path.to_path_buf(), format!("refers to {name:?}, which is not there"));
        }
    }
    Ok(())
}
