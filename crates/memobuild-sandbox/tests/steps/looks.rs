//! What the traced mode serves and what it has on record.

use memobuild_sandbox::{ModeChoice, Outcome};
use memobuild_tree::{
    Node, Tree,
    facts::{Look, Looks},
    path,
};

use crate::{
    basics::Test,
    support::{World, meta},
};

/// The same in each mode.
pub const TESTS: &[(&str, Test)] = &[("files_of_all_sorts_in_one_directory", files_of_all_sorts_in_one_directory)];

/// Of the traced mode alone.
pub const TRACED: &[(&str, Test)] = &[
    ("listing_is_not_looking", listing_is_not_looking),
    ("all_that_is_looked_at_is_on_record", all_that_is_looked_at_is_on_record),
    ("names_that_are_not_there_are_on_record", names_that_are_not_there_are_on_record),
];

/// A file of each sort that is served in a way of its own.
fn sorts(world: &World) -> Tree {
    let mut base = world.base.clone();
    let large = vec![b'l'; Outcome::SMALL_FILE as usize + 1];
    let mut put = |at: &str, text: &[u8], change: &dyn Fn(&mut memobuild_tree::Meta)| {
        let mut node = world.file(text, 0o640);
        change(node.meta_mut());
        base.put(at.as_bytes(), node, &|| meta(0o755));
    };
    put("/mix/plain", b"plain\n", &|_| {});
    put("/mix/large", &large, &|_| {});
    put("/mix/marked", b"marked\n", &|m| m.set_xattr(b"user.mark", b"yes"));
    put("/mix/sub/plain", b"plain\n", &|_| {});
    put("/mix/sub/deep/large", &large, &|m| m.mode = 0o600);
    put("/plain/a", b"a\n", &|_| {});
    base
}

fn files_of_all_sorts_in_one_directory(mode: ModeChoice) {
    let world = World::new(mode);
    let base = sorts(&world);
    let script = "cd /mix; find . | sort; stat -c '%n %s %a' plain large marked sub/deep/large; cat plain marked; \
        wc -c <large; ls /plain; test -e none || echo none; test -e sub/none || echo none";
    let size = Outcome::SMALL_FILE + 1;
    let (after, printed) = world.sh(&base, script);
    assert_eq!(
        printed,
        format!(
            ".\n./large\n./marked\n./plain\n./sub\n./sub/deep\n./sub/deep/large\n./sub/plain\n\
             plain 6 640\nlarge {size} 640\nmarked 7 640\nsub/deep/large {size} 600\nplain\nmarked\n{size}\na\nnone\nnone\n"
        )
    );
    assert_eq!(after, base);
    let changed = |script: &str| world.changes(&base, script);
    assert_eq!(changed("rm /mix/large /mix/plain"), ["~/mix", "-/mix/large", "-/mix/plain"]);
    assert_eq!(changed("rm -r /mix"), ["~/", "-/mix"]);
    let (after, _) = world.sh(&base, "rm -r /mix/sub && mkdir /mix/sub");
    assert!(after.get(b"/mix/sub").unwrap().as_dir().unwrap().entries().is_empty());
    let (after, _) =
        world.sh(&base, "cd /mix; chmod 600 marked; echo more >>large; mv plain moved; mv sub/deep/large up");
    let xattrs = after.get(b"/mix/marked").unwrap().meta().xattrs.clone();
    assert_eq!(xattrs.unwrap().get(b"user.mark".as_slice()).map(|v| v.to_vec()), Some(b"yes".to_vec()));
    assert_eq!(world.text(&after, "/mix/large").len() as u64, size + 5);
    assert_eq!(world.text(&after, "/mix/moved"), "plain\n");
    assert_eq!(world.text(&after, "/mix/up").len() as u64, size);
    assert!(after.get(b"/mix/plain").is_none() && after.get(b"/mix/sub/deep/large").is_none());
}

/// So many directories of so many files, every third of them large.
fn forest(world: &World) -> Tree {
    let mut base = world.base.clone();
    for dir in 0..12 {
        for file in 0..20 {
            let large = file == 7 && dir % 3 == 0;
            let text = vec![b'x'; if large { Outcome::SMALL_FILE as usize + 1 } else { 10 }];
            base.put(format!("/t/d{dir}/f{file}").as_bytes(), world.file(&text, 0o644), &|| meta(0o755));
        }
    }
    base
}

fn looks(world: &World, base: &Tree, script: &str) -> Looks {
    let (outcome, _) = world.run(&world.shell(base, script));
    assert!(outcome.complete);
    outcome.looks.first().cloned().unwrap_or_default()
}

/// Paths below /t that were looked at in that way.
fn below_t(looks: &Looks, how: Look) -> Vec<String> {
    let seen = looks.iter().filter(|(at, look)| at.starts_with(b"/t/") && look.has(how));
    seen.map(|(at, _)| path::display(at)).collect()
}

fn listing_is_not_looking(mode: ModeChoice) {
    let world = World::new(mode);
    let base = forest(&world);
    let looks = looks(&world, &base, "for d in /t/*; do echo $d/f1*; done; cat /t/d5/f3");
    let listed = below_t(&looks, Look::LISTED);
    assert_eq!(listed.len(), 12, "{listed:?}");
    let looked: Vec<_> = below_t(&looks, Look::NODE).into_iter().filter(|at| at.contains("/f")).collect();
    assert_eq!(looked, ["/t/d5/f3"]);
    assert!(looks.get(b"/t/d5/f3").has(Look::READ));
}

fn all_that_is_looked_at_is_on_record(mode: ModeChoice) {
    let world = World::new(mode);
    let base = forest(&world);
    // Twice: what the kernel remembers is not asked again.
    let looks = looks(&world, &base, "find /t -size +5 && find /t -size +5 && cat /t/d11/f19 /t/d9/f7 && ls -l /t/d11");
    let looked = below_t(&looks, Look::NODE);
    assert_eq!(looked.len(), 12 + 12 * 20, "{looked:?}");
    assert_eq!(below_t(&looks, Look::LISTED).len(), 12);
    assert!(looks.get(b"/t/d11/f19").has(Look::READ));
    let files = base.walk().filter(|e| matches!(e.node, Node::File(_)) && e.path.starts_with(b"/t/")).count();
    assert_eq!(files, 12 * 20);
}

fn names_that_are_not_there_are_on_record(mode: ModeChoice) {
    let world = World::new(mode);
    let base = forest(&world);
    let looks = looks(&world, &base, "ls -l /t/d0 /t/d1 /t/d2; test -e /t/d0/none || test -e /t/d1/f7 && cat /t/d3/f7");
    for at in ["/t/d0/none", "/t/d1/f7", "/t/d3/f7"] {
        assert!(looks.get(at.as_bytes()).has(Look::NODE), "{at}");
    }
    assert!(!looks.get(b"/t/d3/f6").has(Look::NODE) && !looks.get(b"/t/d1/none").has(Look::NODE));
}
