//! Ways to look at files and to change them: directories, links, attributes, deletions.

use super::{Start, scenarios};

const COPY: &str = "COPY . .";

/// One step over a small context.
macro_rules! step {
    ($command:literal) => {
        Start::new(
            concat!("WORKDIR /app\nCOPY . .\nRUN ", $command, "\n"),
            &[("d/a", "a\n"), ("d/b", "b\n"), ("d/sub/c", "c\n"), ("conf.d/x", "x\n"), ("other", "other\n")],
        )
        .prepare("ln -s nowhere dangling; ln -s d/a link; mkdir empty")
    };
}

scenarios! {
    // What counts as having looked.
    parent_of_looked_for_file_gone: step!("test -e conf.d/site || echo none > out"), |p| p.remove("conf.d"),
        [COPY, "RUN test -e conf.d/site || echo none > out"];
    file_beside_looked_for_file: step!("test -e conf.d/site || echo none > out"), |p| p.write("conf.d/y", "y"), [COPY];
    names_by_glob_only_and_a_content_edited: step!("for f in d/*; do echo $f; done > out"), |p| p.write("d/a", "other"),
        [COPY];
    names_by_glob_only_and_a_new_name: step!("for f in d/*; do echo $f; done > out"), |p| p.write("d/z", "z"),
        [COPY, "RUN for f in d/*; do echo $f; done > out"];
    ls_looks_at_each_file: step!("ls -l d | wc -l > out"), |p| p.write("d/a", "other"),
        [COPY, "RUN ls -l d | wc -l > out"];
    cat_of_one_file_and_its_neighbour_edited: step!("cat d/a > out"), |p| p.write("d/b", "other"), [COPY];
    find_and_a_file_deep_down: step!("find d > out"), |p| p.write("d/sub/new", ""), [COPY, "RUN find d > out"];
    find_and_a_file_beside: step!("find d > out"), |p| p.write("other", "edited"), [COPY];
    dangling_link_read_and_its_target_appeared: step!("cat dangling > out || echo dangling > out"),
        |p| p.write("nowhere", "here"), [COPY, "RUN cat dangling > out || echo dangling > out"];
    dangling_link_read_and_retargeted_to_nothing: step!("readlink dangling > out"), |p| p.shell("ln -sfn no dangling"),
        [COPY, "RUN readlink dangling > out"];
    link_asked_for_its_target_and_the_target_edited: step!("readlink link > out"), |p| p.write("d/a", "other"), [COPY];
    size_of_a_tree: step!("du -s d | cut -f2 > out"), |p| p.write("d/sub/c", "other"),
        [COPY, "RUN du -s d | cut -f2 > out"];
    tar_of_a_tree_and_a_file_beside: step!("tar -c -f - -C d a b | tar -t > out"), |p| p.write("other", "edited"),
        [COPY];

    // What a step writes itself is no input.
    written_then_read: step!("echo mine > own && cat own > out"), |p| p.write("other", "edited"), [COPY];
    written_over: step!("echo mine > other"), |p| p.write("d/a", "edited"), [COPY];
    written_over_and_the_file_below_edited: step!("echo mine > other"), |p| p.write("other", "edited"),
        [COPY, "RUN echo mine > other"];
    new_file_where_one_appears_below: step!("echo mine > own"), |p| p.write("own", "below"), [COPY, "RUN echo mine > own"];
    appended: step!("echo more >> d/a"), |p| p.write("d/a", "edited\n"), [COPY, "RUN echo more >> d/a"];
    appended_and_the_neighbour_edited: step!("echo more >> d/a"), |p| p.write("d/b", "edited"), [COPY];
    edited_in_place: step!("sed -i s/a/A/ d/a"), |p| p.write("d/sub/c", "edited"), [COPY];
    mode_given: step!("chmod 600 d/a"), |p| p.write("d/a", "edited"), [COPY, "RUN chmod 600 d/a"];
    mode_given_and_the_neighbour_edited: step!("chmod 600 d/a"), |p| p.write("d/b", "edited"), [COPY];

    // Removing and moving depend on all that goes.
    removed_directory_has_a_new_file: step!("rm -rf d"), |p| p.write("d/sub/new", "new"), [COPY, "RUN rm -rf d"];
    removed_directory_and_a_file_beside: step!("rm -rf d"), |p| p.write("other", "edited"), [COPY];
    remade_directory_has_a_new_file: step!("rm -rf d && mkdir d && echo mine > d/own"), |p| p.write("d/sub/new", "new"),
        [COPY, "RUN rm -rf d && mkdir d && echo mine > d/own"];
    removed_file_and_its_neighbour_edited: step!("rm d/a"), |p| p.write("d/b", "edited"), [COPY];
    moved_file_edited: step!("mv d/a moved"), |p| p.write("d/a", "edited"), [COPY, "RUN mv d/a moved"];
    moved_directory_has_a_new_file: step!("mv d moved"), |p| p.write("d/sub/new", "new"), [COPY, "RUN mv d moved"];
    moved_directory_and_a_file_beside: step!("mv d moved"), |p| p.write("other", "edited"), [COPY];
    copied_tree_edited: step!("cp -a d copy"), |p| p.write("d/sub/c", "edited"), [COPY, "RUN cp -a d copy"];
    copied_tree_and_a_file_beside: step!("cp -a d copy"), |p| p.write("other", "edited"), [COPY];
    time_set_on_purpose: step!("touch -d '2001-01-01 00:00:00' d/b"), |p| p.write("d/a", "edited"), [COPY];

    // Nothing changed by a step.
    empty_change_and_an_unread_edit: step!("test -s d/a"), |p| p.write("other", "edited"), [COPY];
    empty_change_and_a_read_edit: step!("grep -q . d/a"), |p| p.write("d/a", "edited\n"), [COPY, "RUN grep -q . d/a"];
    step_that_looks_at_nothing: step!("true"), |p| p.write("d/a", "edited"), [COPY];
}

const LINKS: Start = Start::new(
    "WORKDIR /app\n\
     COPY . .\n\
     RUN cp name one && ln one two\n\
     RUN stat -c %h one > count\n\
     RUN echo more >> two\n",
    &[("name", "name\n"), ("other", "")],
);
/// Attributes by the machine's own tools, put into the base image with the libraries that they need.
const ATTRIBUTES: Start = Start::new(
    "WORKDIR /app\n\
     COPY . .\n\
     RUN cp name tagged && setfattr -n user.tag -v \"$(cat tag)\" tagged\n\
     RUN getfattr --only-values -n user.tag tagged > value\n\
     RUN cat name > copied\n",
    &[("name", "name\n"), ("tag", "one"), ("other", "")],
)
.base(
    "for tool in setfattr getfattr; do
        path=$(command -v $tool) || continue
        cp -L \"$path\" usr/bin/
        ldd \"$path\" | grep -o '/[^ )]*' | while read -r library; do
            mkdir -p \".$(dirname \"$library\")\" && cp -L \"$library\" \".$library\"
        done
    done",
);

scenarios! {
    hard_links_and_an_unread_edit: LINKS, |p| p.write("other", "edited"), [COPY];
    hard_linked_file_edited: LINKS, |p| p.write("name", "edited\n"),
        [COPY, "RUN cp name one && ln one two", "RUN stat -c %h one > count", "RUN echo more >> two"];
    hard_link_became_a_copy: LINKS, |p| p.replace("ln one two", "cp one two"),
        [COPY, "RUN cp name one && cp one two", "RUN stat -c %h one > count", "RUN echo more >> two"];
}

#[test]
fn attributes_and_an_unread_edit() {
    if tools() {
        super::check(&ATTRIBUTES, |p| p.write("other", "edited"), &[COPY]);
    }
}

#[test]
fn attribute_of_an_earlier_step_changed() {
    if tools() {
        let sets = "RUN cp name tagged && setfattr -n user.tag -v \"$(cat tag)\" tagged";
        let gets = "RUN getfattr --only-values -n user.tag tagged > value";
        super::check(&ATTRIBUTES, |p| p.write("tag", "two"), &[COPY, sets, gets]);
    }
}

fn tools() -> bool {
    let there = std::path::Path::new("/usr/bin/setfattr").exists();
    if !there {
        println!("skipped: needs setfattr and getfattr (package attr)");
    }
    there
}
