//! What every mode must do alike.

use memobuild_sandbox::{Exit, ModeChoice, SandboxError};
use memobuild_tree::Node;

use crate::support::{World, listing};

/// A test that is run in each mode.
pub type Test = fn(ModeChoice);

pub const TESTS: &[(&str, Test)] = &[
    ("output_and_exit", output_and_exit),
    ("new_files_and_nothing_else", new_files_and_nothing_else),
];

fn output_and_exit(mode: ModeChoice) {
    let world = World::new(mode);
    let (result, printed) = world.try_run(&world.shell(&world.base, "echo out; echo err >&2; exit 7"));
    assert_eq!(result.unwrap().exit, Exit::Code(7));
    assert_eq!((printed.out(), printed.err()), ("out\n".into(), "err\n".into()));
    let (result, _) = world.try_run(&world.shell(&world.base, "kill -9 $$"));
    assert_eq!(result.unwrap().exit, Exit::Signal(9));
    let mut step = world.shell(&world.base, "");
    step.argv = vec![b"no-such-tool".to_vec()];
    let (result, _) = world.try_run(&step);
    let Err(SandboxError::Start { code, reason, .. }) = result else { panic!("{result:?}") };
    assert_eq!((code, reason.as_str()), (127, "exec \"no-such-tool\": executable file not found in $PATH"));
}

fn new_files_and_nothing_else(mode: ModeChoice) {
    let world = World::new(mode);
    let (outcome, _) = world.run(&world.shell(&world.base, "echo hi > /o; umask; ls -l /proc/self/fd | wc -l"));
    assert_eq!(listing(&outcome), ["~/", "+/o"]);
    let tree = outcome.diff.apply(&world.base).unwrap();
    assert_eq!(world.text(&tree, "/o"), "hi\n");
    let Some(Node::File(file)) = tree.get(b"/o") else { panic!() };
    assert_eq!((file.meta.mode, file.meta.uid, file.meta.mtime.pinned), (0o644, 0, false));
}
