//! Changes in the context, over `COPY . .`.

use super::{Start, scenarios};

/// Each step looks at the context in a way of its own.
pub const SHOP: Start = Start::new(
    "WORKDIR /app\n\
     COPY . .\n\
     RUN cat src/main src/lib > main.out\n\
     RUN ls docs > docs.out\n\
     RUN cat texts/*.txt > texts.out\n\
     RUN test -e local.conf && cp local.conf conf.out || echo none > conf.out\n\
     RUN stat -c '%s %A' assets/logo > logo.out\n\
     RUN tools/run > run.out\n\
     RUN cat current/name > current.out\n",
    &[
        ("README.md", "read me\n"),
        ("src/main", "main\n"),
        ("src/lib", "lib\n"),
        ("src/unread", "unread\n"),
        ("docs/a", "a\n"),
        ("docs/b", "b\n"),
        ("texts/one.txt", "one\n"),
        ("texts/two.txt", "two\n"),
        ("assets/logo", "logo\n"),
        ("assets/spare", "spare\n"),
        ("tools/run", "#!/bin/sh\necho ran\n"),
        ("v1/name", "one\n"),
        ("v2/name", "two\n"),
    ],
)
.prepare("chmod 755 tools/run; ln -s v1 current; ln -s nowhere dangling");

const COPY: &str = "COPY . .";
const CAT: &str = "RUN cat src/main src/lib > main.out";
const LS: &str = "RUN ls docs > docs.out";
const GLOB: &str = "RUN cat texts/*.txt > texts.out";
const TEST: &str = "RUN test -e local.conf && cp local.conf conf.out || echo none > conf.out";
const STAT: &str = "RUN stat -c '%s %A' assets/logo > logo.out";
const TOOL: &str = "RUN tools/run > run.out";
const LINK: &str = "RUN cat current/name > current.out";

scenarios! {
    nothing_changed: SHOP, |_| (), [];
    readme_edited: SHOP, |p| p.write("README.md", "other"), [COPY];
    unread_source_edited: SHOP, |p| p.write("src/unread", "other"), [COPY];
    read_source_edited: SHOP, |p| p.write("src/lib", "other"), [COPY, CAT];
    read_source_edited_same_size: SHOP, |p| p.write("src/lib", "bil\n"), [COPY, CAT];
    edit_undone: SHOP, |p| {
        p.write("src/lib", "other");
        p.build();
        p.write("src/lib", "lib\n");
    }, [];
    touched: SHOP, |p| p.shell("touch src/main docs docs/a tools/run"), [];
    mode_of_read_file_changed: SHOP, |p| p.shell("chmod 600 src/main"), [COPY, CAT];
    mode_of_a_script_changed: SHOP, |p| p.shell("chmod 700 tools/run"), [COPY, TOOL];
    mode_of_unread_file_changed: SHOP, |p| p.shell("chmod 600 src/unread"), [COPY];
    mode_of_walked_directory_changed: SHOP, |p| p.shell("chmod 700 src"), [COPY, CAT];
    script_lost_its_exec_bit_and_gained_a_shell: SHOP, |p| {
        p.shell("chmod 644 tools/run");
        p.replace("RUN tools/run", "RUN sh tools/run");
    }, [COPY, "RUN sh tools/run > run.out"];
    new_file_in_listed_directory: SHOP, |p| p.write("docs/c", "c"), [COPY, LS];
    new_file_in_other_directory: SHOP, |p| p.write("src/new", "new"), [COPY];
    new_directory: SHOP, |p| p.write("more/new", "new"), [COPY];
    file_of_listed_directory_gone: SHOP, |p| p.remove("docs/b"), [COPY, LS];
    file_of_listed_directory_renamed: SHOP, |p| p.shell("mv docs/b docs/z"), [COPY, LS];
    unread_file_gone: SHOP, |p| p.remove("src/unread"), [COPY];
    glob_has_a_new_match: SHOP, |p| p.write("texts/three.txt", "three"), [COPY, GLOB];
    glob_lost_a_match: SHOP, |p| p.remove("texts/two.txt"), [COPY, GLOB];
    looked_for_file_appeared: SHOP, |p| p.write("local.conf", "local"), [COPY, TEST];
    stated_file_edited: SHOP, |p| p.write("assets/logo", "another logo"), [COPY, STAT];
    stated_file_edited_same_size: SHOP, |p| p.write("assets/logo", "ogol\n"), [COPY, STAT];
    file_beside_stated_file_edited: SHOP, |p| p.write("assets/spare", "other"), [COPY];
    script_edited: SHOP, |p| p.write("tools/run", "#!/bin/sh\necho other\n"), [COPY, TOOL];
    link_retargeted: SHOP, |p| p.shell("ln -sfn v2 current"), [COPY, LINK];
    link_became_a_directory: SHOP, |p| p.shell("rm current; mkdir current; echo own > current/name"), [COPY, LINK];
    file_behind_link_edited: SHOP, |p| p.write("v1/name", "other"), [COPY, LINK];
    file_of_the_link_s_other_target_edited: SHOP, |p| p.write("v2/name", "other"), [COPY];
    unused_dangling_link_retargeted: SHOP, |p| p.shell("ln -sfn elsewhere dangling"), [COPY];
    unread_file_became_a_directory: SHOP, |p| {
        p.remove("src/unread");
        p.write("src/unread/inside", "x");
    }, [COPY];
    stated_file_became_a_directory: SHOP, |p| {
        p.remove("assets/logo");
        p.write("assets/logo/inside", "x");
    }, [COPY, STAT];
    unread_file_ignored: SHOP, |p| p.write(".dockerignore", "src/unread\n.dockerignore\n"), [COPY];
    listed_file_ignored: SHOP, |p| p.write(".dockerignore", "docs/b\n.dockerignore\n"), [COPY, LS];
    ignored_file_edited: SHOP.prepare("printf 'README.md\\n' > .dockerignore
        chmod 755 tools/run; ln -s v1 current"), |p| p.write("README.md", "other"), [];
    everything_read_edited: SHOP, |p| {
        for name in ["src/main", "docs/a", "texts/one.txt", "local.conf", "assets/logo", "v1/name"] {
            p.write(name, "other");
        }
        p.write("tools/run", "#!/bin/sh\necho other\n");
    }, [COPY, CAT, LS, GLOB, TEST, STAT, TOOL, LINK];
}

/// Steps that stand on one another.
const CHAIN: Start = Start::new(
    "WORKDIR /app\n\
     COPY . .\n\
     RUN grep -v '^#' conf > conf.clean\n\
     RUN cat conf.clean > built\n\
     RUN wc -c < built > size\n",
    &[("conf", "# said\nvalue\n"), ("README.md", "")],
);

scenarios! {
    early_cut_off: CHAIN, |p| p.write("conf", "# said otherwise\nvalue\n"),
        [COPY, "RUN grep -v '^#' conf > conf.clean"];
    late_cut_off: CHAIN, |p| p.write("conf", "# said\neulav\n"),
        [COPY, "RUN grep -v '^#' conf > conf.clean", "RUN cat conf.clean > built", "RUN wc -c < built > size"];
    unread_file_below_a_chain: CHAIN, |p| p.write("README.md", "other"), [COPY];
    step_failed_then_succeeded: CHAIN, |p| {
        p.write("conf", "# nothing but this\n");
        assert_eq!(p.try_build(&[]).output.status.code(), Some(1));
        p.write("conf", "# said\nother\n");
    }, [COPY, "RUN grep -v '^#' conf > conf.clean", "RUN cat conf.clean > built", "RUN wc -c < built > size"];
    step_failed_then_the_edit_was_undone: CHAIN, |p| {
        p.write("conf", "# nothing but this\n");
        assert_eq!(p.try_build(&[]).output.status.code(), Some(1));
        p.write("conf", "# said\nvalue\n");
    }, [];
    step_failed_for_a_file_that_was_missing: Start::new(
        "WORKDIR /app\nCOPY . .\nRUN cat README.md > a\nRUN cat late > b || test ! -e must\n",
        &[("README.md", "")],
    ), |p| {
        p.write("must", "");
        assert_eq!(p.try_build(&[]).output.status.code(), Some(1));
        p.write("late", "late");
    }, [COPY, "RUN cat late > b || test ! -e must"];
}
