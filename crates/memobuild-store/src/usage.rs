//! What takes how much room: the listing behind `memobuild du`.

use std::time::SystemTime;

use crate::{
    Ref, Store,
    digest_map::{DigestMap, DigestSet},
    error::Result,
    gc::{hex_of, mount_name},
    inventory::{Inventory, file_name, time, written},
    lease::Held,
};

/// One thing on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageItem {
    /// `bundle`, `blob`, `image blob`, `cache mount`, `context`, `partial download`, `damaged` or `other` (index and
    /// scratch space).
    pub kind: &'static str,
    /// Its digest or name.
    pub id: String,
    /// Bytes really on disk.
    pub bytes: u64,
    /// When the newest record that reaches it was last used (to the hour); `None` if none does.
    pub last_used: Option<SystemTime>,
    /// Whether a living process holds it.
    pub in_use: bool,
    /// Whether a tag reaches it: then GC never removes it.
    pub tagged: bool,
}

/// Everything on disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// Largest first.
    pub items: Vec<UsageItem>,
    /// Their sum.
    pub total_bytes: u64,
}

impl Store {
    /// Lists what is on disk.
    pub fn usage(&self) -> Result<Usage> {
        self.flush()?;
        let inventory = Inventory::take(self.layout())?;
        let held: DigestSet<Ref> = Held::take(self.layout())?.refs.clone();
        let mut used = DigestMap::default();
        for row in self.record_rows()? {
            mark(&inventory, &row.refs, row.used, &mut used);
        }
        let (mut tagged, mut in_use) = (DigestMap::default(), DigestMap::default());
        for row in self.tag_rows()? {
            mark(&inventory, &row.refs, 1, &mut tagged);
        }
        mark(&inventory, &held.into_iter().collect::<Vec<_>>(), 1, &mut in_use);
        let mut items = Vec::new();
        for (name, item) in &inventory.things {
            items.push(UsageItem {
                kind: match name {
                    Ref::Bundle(_) => "bundle",
                    Ref::Content(_) => "blob",
                    Ref::Oci(_) => "image blob",
                },
                id: hex_of(name),
                bytes: item.bytes,
                last_used: used.get(name).and_then(|secs| time(*secs)),
                in_use: in_use.contains_key(name),
                tagged: tagged.contains_key(name),
            });
        }
        let plain = |kind, id, bytes, last_used| UsageItem { kind, id, bytes, last_used, in_use: false, tagged: false };
        for mount in &inventory.mounts {
            items.push(plain("cache mount", mount_name(&mount.key), mount.item.bytes, time(mount.used)));
        }
        let lists = [
            ("context", &inventory.contexts),
            ("partial download", &inventory.partials),
            ("damaged", &inventory.damaged),
        ];
        for (kind, list) in lists {
            let item = |i: &crate::inventory::Item| plain(kind, file_name(&i.path), i.bytes, time(written(&i.path)));
            items.extend(list.iter().map(item));
        }
        items.push(plain("other", "index and scratch".into(), inventory.other_bytes, None));
        items.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.id.cmp(&b.id)));
        Ok(Usage { total_bytes: inventory.total(), items })
    }
}

/// Notes the newest time for all that is reached from these.
fn mark(inventory: &Inventory, roots: &[Ref], time: i64, seen: &mut DigestMap<Ref, i64>) {
    let mut todo = roots.to_vec();
    while let Some(name) = todo.pop() {
        let old = seen.get(&name).copied();
        if old.is_none_or(|old| old < time) {
            seen.insert(name, time);
            todo.extend(inventory.refs_of(&name));
        }
    }
}
