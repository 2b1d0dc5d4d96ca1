//! The rules of copying, as BuildKit's file operations have them.

use memobuild_plan::model::Chmod;
use memobuild_tree::{ContentDigest, File, LinkId, Meta, Mtime, Node, Symlink, Tree, path};

use super::{Attributes, Edited, Editor, Query, place, select};

fn meta(mode: u32) -> Meta {
    Meta::new(mode, Mtime::ambient(100, 0))
}

fn file(text: &str) -> Node {
    let content = ContentDigest::of(text.as_bytes());
    Node::File(File { meta: meta(0o644), size: text.len() as u64, content, link: None })
}

/// `path=text` is a file, `path/` a directory, `path->target` a link.
fn tree(entries: &[&str]) -> Tree {
    let mut tree = Tree::default();
    let parent = || meta(0o755);
    for entry in entries {
        if let Some((at, text)) = entry.split_once('=') {
            tree.put(at.as_bytes(), file(text), &parent);
        } else if let Some((at, target)) = entry.split_once("->") {
            let link = Symlink { meta: meta(0o777), target: target.as_bytes().into() };
            tree.put(at.as_bytes(), Node::Symlink(link), &parent);
        } else {
            tree.put(&[entry.as_bytes(), b"x"].concat(), file(""), &parent);
            tree.remove(&[entry.as_bytes(), b"x"].concat());
        }
    }
    tree
}

fn show(tree: &Tree) -> Vec<String> {
    tree.walk()
        .filter(|e| e.node.as_dir().is_none_or(|d| d.entries().is_empty()))
        .map(|e| {
            let tail = match e.node {
                Node::Dir(_) => "/".to_owned(),
                Node::Symlink(link) => format!("->{}", path::display(&link.target)),
                _ => String::new(),
            };
            format!("{}{tail}", path::display(&e.path))
        })
        .collect()
}

struct Case<'a> {
    source: &'a [&'a str],
    base: &'a [&'a str],
    pattern: &'a str,
    dest: &'a str,
}

fn copied(case: &Case<'_>) -> Result<Tree, String> {
    let source = tree(case.source);
    let query = Query { pattern: case.pattern.as_bytes(), include: None, exclude: &[], may_be_empty: true };
    let base = tree(case.base);
    let mut editor = Editor::new(base.clone(), Mtime::ambient(7, 0));
    for one in select(&source, &query).map_err(|e| e.to_string())? {
        place(&mut editor, &one, case.dest.as_bytes(), case.dest.ends_with('/'), &Attributes::default())
            .map_err(|e| e.to_string())?;
    }
    let Edited { tree, diff, .. } = editor.finish();
    // What the diff says is what the edits did.
    assert_eq!(diff.apply(&base).unwrap(), tree);
    Ok(tree)
}

fn listing(source: &[&str], base: &[&str], pattern: &str, dest: &str) -> Vec<String> {
    match copied(&Case { source, base, pattern, dest }) {
        Ok(tree) => show(&tree),
        Err(e) => vec![format!("error: {e}")],
    }
}

#[test]
fn a_file_goes_to_the_name_or_into_the_directory() {
    let src = ["/a=1", "/d/b=2"];
    assert_eq!(listing(&src, &[], "/a", "/x"), ["/x"]);
    assert_eq!(listing(&src, &[], "/a", "/x/"), ["/x/a"]);
    assert_eq!(listing(&src, &["/x/"], "/a", "/x"), ["/x/a"]);
    assert_eq!(listing(&src, &[], "/d/b", "/new/deep/name"), ["/new/deep/name"]);
}

#[test]
fn a_directory_gives_its_contents() {
    let src = ["/d/b=2", "/d/e/c=3"];
    assert_eq!(listing(&src, &[], "/d", "/x"), ["/x/b", "/x/e/c"]);
    assert_eq!(listing(&src, &["/x/old=1"], "/d", "/x"), ["/x/b", "/x/e/c", "/x/old"]);
    assert_eq!(listing(&src, &[], "/", "/x"), ["/x/d/b", "/x/d/e/c"]);
}

#[test]
fn kinds_in_the_way_are_errors_or_replaced() {
    let src = ["/f=1", "/d/e/c=3"];
    assert_eq!(listing(&src, &["/x/e=file"], "/d", "/x"), ["error: cannot copy to non-directory: /x/e"]);
    assert_eq!(listing(&["/d/e=f"], &["/x/e/"], "/d", "/x"), ["error: cannot replace to directory /x/e with file"]);
    assert_eq!(listing(&src, &["/x->y"], "/f", "/x"), ["/x->y", "/y"]);
    assert_eq!(listing(&src, &["/f=old"], "/f", "/f/"), ["error: mkdir /f: not a directory"]);
}

#[test]
fn links_on_the_way_to_the_destination_are_followed_within_the_root() {
    assert_eq!(listing(&["/f=1"], &["/real/", "/l->/real"], "/f", "/l/sub/"), ["/l->/real", "/real/sub/f"]);
    assert_eq!(listing(&["/f=1"], &["/l->../../../out"], "/f", "/l"), ["/l->../../../out", "/out"]);
}

#[test]
fn a_source_link_is_followed_when_named_and_kept_within_a_directory() {
    let src = ["/d/l->f", "/d/f=1", "/l->d/f", "/up->../../d"];
    assert_eq!(listing(&src, &[], "/l", "/x/"), ["/x/l"]);
    assert_eq!(listing(&src, &[], "/d", "/x"), ["/x/f", "/x/l->f"]);
    assert_eq!(listing(&src, &[], "/up", "/x"), ["/x/f", "/x/l->f"]);
}

#[test]
fn wildcards_match_within_one_component() {
    let src = ["/a/x.c=1", "/a/y.h=2", "/b/z.c=3", "/b/deep/w.c=4"];
    assert_eq!(listing(&src, &[], "/*/*.c", "/o/"), ["/o/x.c", "/o/z.c"]);
    assert_eq!(listing(&src, &[], "/a/[^y]*", "/o/"), ["/o/x.c"]);
    assert_eq!(listing(&src, &[], "/b/*", "/o/"), ["/o/w.c", "/o/z.c"]);
    assert_eq!(listing(&src, &[], "/none*", "/o/"), [] as [&str; 0]);
    assert!(listing(&src, &[], "/none", "/o/")[0].ends_with("not found"));
}

#[test]
fn exclude_and_include_patterns_leave_a_part() {
    let source = tree(&["/d/a.md=1", "/d/b.c=2", "/d/e/c.md=3", "/d/e/keep.md=4", "/d/g/h.md=5"]);
    let names = |include: Option<&str>, exclude: &[&str]| {
        let exclude: Vec<String> = exclude.iter().map(|s| (*s).to_owned()).collect();
        let query = Query { pattern: b"/d", include, exclude: &exclude, may_be_empty: false };
        let mut editor = Editor::new(Tree::default(), Mtime::default());
        for one in select(&source, &query).unwrap() {
            place(&mut editor, &one, b"/o", true, &Attributes::default()).unwrap();
        }
        show(&editor.finish().tree)
    };
    assert_eq!(names(None, &["**/*.md"]), ["/o/b.c", "/o/e/", "/o/g/"]);
    assert_eq!(names(None, &["**/*.md", "!e/keep.md"]), ["/o/b.c", "/o/e/keep.md", "/o/g/"]);
    assert_eq!(names(Some("e/*.md"), &[]), ["/o/e/c.md", "/o/e/keep.md"]);
    assert_eq!(names(Some("g"), &[]), ["/o/g/h.md"]);
}

#[test]
fn owner_and_mode_are_given_to_all_that_is_copied_and_made() {
    let source = tree(&["/d/f=1", "/d/l->f", "/d/e/"]);
    let attributes = Attributes { owner: Some((5, 6)), chmod: Some(Chmod::Octal(0o640)) };
    let mut editor = Editor::new(Tree::default(), Mtime::default());
    let query = Query { pattern: b"/d", include: None, exclude: &[], may_be_empty: false };
    for one in select(&source, &query).unwrap() {
        place(&mut editor, &one, b"/new/o", false, &attributes).unwrap();
    }
    for (at, mode) in
        [("/new", 0o640), ("/new/o", 0o640), ("/new/o/f", 0o640), ("/new/o/e", 0o640), ("/new/o/l", 0o777)]
    {
        let meta = editor.get(at.as_bytes()).unwrap().meta().clone();
        assert_eq!((meta.uid, meta.gid, meta.mode), (5, 6, mode), "{at}");
    }
}

#[test]
fn hard_links_stay_links_if_both_names_are_taken() {
    let mut source = tree(&["/d/a=1", "/d/b=1", "/other=1"]);
    let mut group = [b"/d/a".to_vec(), b"/d/b".to_vec(), b"/other".to_vec()];
    let link = LinkId::of(&mut group, ContentDigest::of(b"1"));
    for at in ["/d/a", "/d/b", "/other"] {
        let Some(Node::File(f)) = source.get(at.as_bytes()) else { panic!("{at}") };
        source.put(at.as_bytes(), Node::File(File { link: Some(link), ..f }), &Meta::default);
    }
    let links = |pattern: &str| {
        let query = Query { pattern: pattern.as_bytes(), include: None, exclude: &[], may_be_empty: false };
        let mut editor = Editor::new(Tree::default(), Mtime::default());
        for one in select(&source, &query).unwrap() {
            place(&mut editor, &one, b"/o/", true, &Attributes::default()).unwrap();
        }
        let made = editor.finish().tree;
        let walk = made.walk().filter_map(|e| match e.node {
            Node::File(f) => Some(f.link),
            _ => None,
        });
        walk.collect::<Vec<_>>()
    };
    let both = links("/d");
    assert_eq!(both.len(), 2);
    assert!(both[0].is_some() && both[0] == both[1] && both[0] != Some(link));
    assert_eq!(links("/other"), [None]);
}

#[test]
fn the_topmost_directory_keeps_its_metadata_and_inner_ones_take_the_source_s() {
    let mut source = tree(&["/d/e/f=1"]);
    let mut e = source.get(b"/d/e").unwrap();
    e.meta_mut().mode = 0o700;
    source.put(b"/d/e", e, &Meta::default);
    let mut d = source.get(b"/d").unwrap();
    d.meta_mut().mode = 0o711;
    source.put(b"/d", d, &Meta::default);
    let mut editor = Editor::new(tree(&["/o/e/"]), Mtime::default());
    let query = Query { pattern: b"/d", include: None, exclude: &[], may_be_empty: false };
    for one in select(&source, &query).unwrap() {
        place(&mut editor, &one, b"/o", false, &Attributes::default()).unwrap();
    }
    assert_eq!(editor.get(b"/o").unwrap().meta().mode, 0o755);
    assert_eq!(editor.get(b"/o/e").unwrap().meta().mode, 0o700);
}
