//! From what the walk saw, directory by directory, to one tree and the next stat cache.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use memobuild_tree::{Dir, LinkId, Node, Tree};

use super::{
    cache::{Builder, Known},
    walk::{LinkSeen, WalkedDir},
};

pub(super) struct Assembled {
    pub(super) tree: Tree,
    pub(super) cache: Option<Vec<u8>>,
}

/// `dirs`: parents before their children, the root first.
pub(super) fn assemble(mut dirs: Vec<WalkedDir>, links: Vec<LinkSeen>, with_cache: bool) -> Assembled {
    join_links(&mut dirs, links);
    let mut builder = with_cache.then(Builder::new);
    // Finished directories with the blocks they have in the cache, by number.
    let mut done: Vec<Option<(Arc<Dir>, Option<u32>)>> = Vec::new();
    done.resize_with(dirs.len(), || None);
    let mut root_block = None;
    while let Some(mut dir) = dirs.pop() {
        let mut known: Vec<(Arc<[u8]>, Known)> = Vec::new();
        if builder.is_some() {
            known.reserve(dir.entries.len() + dir.subdirs.len());
            known.extend(dir.files.drain(..).map(|file| (file.name, file.known)));
        }
        for (name, number) in dir.subdirs {
            let Some((node, block)) = done.get_mut(number).and_then(Option::take) else { continue };
            if let Some(block) = block {
                known.push((name.clone(), Known::Dir(block)));
            }
            dir.entries.push((name, Node::Dir(node)));
        }
        let block = builder.as_mut().and_then(|builder| {
            known.sort_unstable_by(|a, b| a.0.cmp(&b.0));
            let entries: Vec<(&[u8], Known)> = known.iter().map(|(name, known)| (&**name, *known)).collect();
            builder.dir(&entries)
        });
        // A directory on the way to nothing is not there.
        let number = dirs.len();
        if dir.included || !dir.entries.is_empty() || number == 0 {
            let node = Dir::with_entries(dir.meta, dir.entries.into_iter().collect::<BTreeMap<_, _>>());
            if let Some(slot) = done.get_mut(number) {
                *slot = Some((Arc::new(node), block));
            }
        }
        root_block = block;
    }
    let tree = done.into_iter().next().flatten().map(|(root, _)| Tree::new(root)).unwrap_or_default();
    Assembled { tree, cache: builder.zip(root_block).map(|(builder, root)| builder.finish(root)) }
}

/// Names of one file become a link group, if at least two of them are in the tree.
fn join_links(dirs: &mut [WalkedDir], links: Vec<LinkSeen>) {
    let mut groups: BTreeMap<(u64, u64), Vec<LinkSeen>> = BTreeMap::new();
    for link in links {
        groups.entry(link.file).or_default().push(link);
    }
    let groups: Vec<Vec<LinkSeen>> = groups.into_values().filter(|group| group.len() > 1).collect();
    // Parts of a large directory arrive in any order; sorted, a name is found fast however many links there are.
    let numbers: BTreeSet<usize> = groups.iter().flatten().map(|link| link.dir).collect();
    for number in numbers {
        if let Some(dir) = dirs.get_mut(number) {
            dir.entries.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        }
    }
    for group in groups {
        let Some(content) = group.first().map(|link| link.content) else { continue };
        let path = |link: &LinkSeen| {
            let mut path = vec![b'/'];
            if let Some(dir) = dirs.get(link.dir).filter(|dir| !dir.path.is_empty()) {
                path.extend_from_slice(&dir.path);
                path.push(b'/');
            }
            path.extend_from_slice(&link.name);
            path
        };
        let id = LinkId::of(&mut group.iter().map(path).collect::<Vec<_>>(), content);
        for link in group {
            let Some(dir) = dirs.get_mut(link.dir) else { continue };
            let found = dir.entries.binary_search_by(|(name, _)| name.cmp(&link.name)).ok();
            if let Some((_, Node::File(file))) = found.and_then(|at| dir.entries.get_mut(at)) {
                file.link = Some(id);
            }
        }
    }
}
