//! Where what was selected goes, by the rules of BuildKit's file operations (fsutil `copy.Copy` with
//! `CopyDirContents`).

use std::{collections::BTreeMap, sync::Arc};

use memobuild_plan::model::Chmod;
use memobuild_tree::{Dir, File, LinkId, Meta, Node, path};

use super::{
    Pick, Selected,
    editor::{EditError, Editor},
};
use crate::chmod;

/// What `--chown` and `--chmod` change.
#[derive(Debug, Clone, Default)]
pub(crate) struct Attributes {
    /// New owner of everything copied or made on the way.
    pub(crate) owner: Option<(u32, u32)>,
    /// New mode of everything copied.
    pub(crate) chmod: Option<Chmod>,
}

/// Why something can't be put where it should go.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PlaceError {
    #[error(transparent)]
    Edit(#[from] EditError),
    #[error(transparent)]
    Resolve(#[from] memobuild_tree::ResolveError),
    #[error("cannot copy to non-directory: {}", path::display(.0))]
    NotADirectory(Vec<u8>),
    #[error("cannot replace to directory {} with file", path::display(.0))]
    IsADirectory(Vec<u8>),
}

impl Attributes {
    /// Mode of directories made on the way, which take permission bits only.
    fn dir_mode(&self) -> u32 {
        match self.chmod {
            Some(Chmod::Octal(mode)) => mode & 0o777,
            _ => 0o755,
        }
    }

    fn apply(&self, meta: &Meta, is_dir: bool, is_link: bool) -> Meta {
        let mut meta = meta.clone();
        if let Some((uid, gid)) = self.owner {
            (meta.uid, meta.gid) = (uid, gid);
        }
        if !is_link {
            match &self.chmod {
                Some(Chmod::Octal(mode)) => meta.mode = *mode,
                Some(Chmod::Symbolic(text)) => {
                    // Planning has checked the text.
                    meta.mode = chmod::apply(text, meta.mode, is_dir).unwrap_or(meta.mode);
                }
                None => {}
            }
        }
        meta
    }

    fn changes_nothing(&self) -> bool {
        self.owner.is_none() && self.chmod.is_none()
    }
}

/// Copies one selected thing to `dest`.
pub(crate) fn place(
    editor: &mut Editor,
    selected: &Selected,
    dest: &[u8],
    dest_is_dir: bool,
    attributes: &Attributes,
) -> Result<(), PlaceError> {
    let owner = attributes.owner.unwrap_or((0, 0));
    let mode = attributes.dir_mode();
    let parts = path::components(dest);
    let parent = match parts.split_last() {
        Some((_, parents)) if !dest_is_dir => path::from_components(parents),
        _ => path::from_components(&parts),
    };
    editor.mkdir_all(&parent, mode, owner)?;
    let source_is_dir = !matches!(&selected.pick, Pick::Whole(node) if node.as_dir().is_none());
    let mut target = editor.resolve(dest)?;
    if !source_is_dir && matches!(target.node, Some(Node::Dir(_))) {
        let inside = path::join(&target.path, &selected.name);
        target = memobuild_tree::Resolved { node: editor.get(&inside), path: inside };
    }
    let made = if source_is_dir && target.node.is_none() {
        // The directory that takes the contents is made like a parent, and then does not take the source's metadata.
        editor.mkdir_all(&target.path, mode, owner)?
    } else {
        target.path
    };
    let mut copier = Copier { editor, attributes, links: BTreeMap::new() };
    copier.copy(&selected.pick, &made, true)?;
    copier.join_links();
    Ok(())
}

struct Copier<'a> {
    editor: &'a mut Editor,
    attributes: &'a Attributes,
    /// Paths written for each group of hard links in the source.
    links: BTreeMap<LinkId, Vec<Vec<u8>>>,
}

impl Copier<'_> {
    fn copy(&mut self, pick: &Pick, target: &[u8], top: bool) -> Result<(), PlaceError> {
        match pick {
            Pick::Whole(Node::Dir(dir)) => self.whole_dir(dir, target, top),
            Pick::Whole(node) => self.leaf(node, target),
            Pick::Part { meta, matched, children } => {
                self.dir_itself(meta, *matched, target, top)?;
                for (name, child) in children {
                    self.copy(child, &join(target, name), false)?;
                }
                Ok(())
            }
        }
    }

    fn whole_dir(&mut self, dir: &Arc<Dir>, target: &[u8], top: bool) -> Result<(), PlaceError> {
        if self.attributes.changes_nothing() && !dir.summary().links && self.editor.get(target).is_none() {
            self.editor.put_new_tree(target, dir);
            return Ok(());
        }
        self.dir_itself(dir.meta(), true, target, top)?;
        for (name, node) in dir.entries() {
            let at = join(target, name);
            match node {
                Node::Dir(dir) => self.whole_dir(dir, &at, false)?,
                node => self.leaf(node, &at)?,
            }
        }
        Ok(())
    }

    /// The directory without its children. The topmost keeps its metadata if it was there, but takes the source's
    /// time; one further down takes all of it. One that was not matched itself only lends its mode.
    fn dir_itself(&mut self, source: &Meta, matched: bool, target: &[u8], top: bool) -> Result<(), PlaceError> {
        let wanted = self.attributes.apply(source, true, false);
        match self.editor.get(target) {
            Some(Node::Dir(old)) => {
                self.editor.rely(target);
                let mut meta = old.meta().clone();
                if top {
                    meta.mtime = source.mtime;
                } else if matched {
                    meta = wanted;
                } else {
                    meta.mode = source.mode;
                }
                if meta != *old.meta() {
                    self.editor.put_dir(target, meta, false);
                }
            }
            Some(_) => return Err(PlaceError::NotADirectory(target.to_vec())),
            None => self.editor.put_dir(target, wanted, false),
        }
        Ok(())
    }

    fn leaf(&mut self, node: &Node, target: &[u8]) -> Result<(), PlaceError> {
        if let Some(Node::Dir(_)) = self.editor.get(target) {
            return Err(PlaceError::IsADirectory(target.to_vec()));
        }
        let mut node = node.clone();
        let is_link = matches!(node, Node::Symlink(_));
        *node.meta_mut() = self.attributes.apply(node.meta(), false, is_link);
        if let Node::File(file) = &mut node
            && let Some(link) = file.link.take()
        {
            self.links.entry(link).or_default().push(target.to_vec());
        }
        self.editor.put(target, node);
        Ok(())
    }

    /// Names that were one file in the source are one file again, if more than one of them was taken.
    fn join_links(&mut self) {
        for paths in self.links.values_mut().filter(|paths| paths.len() > 1) {
            let Some(Node::File(first)) = paths.first().and_then(|p| self.editor.get(p)) else { continue };
            let link = LinkId::of(paths, first.content);
            for at in paths.iter() {
                if let Some(Node::File(file)) = self.editor.get(at) {
                    self.editor.put(at, Node::File(File { link: Some(link), ..file }));
                }
            }
        }
    }
}

fn join(at: &[u8], name: &[u8]) -> Vec<u8> {
    if at == b"/" { [b"/", name].concat() } else { [at, b"/", name].concat() }
}
