//! COPY and ADD over other parents, and with flags.

use super::{Start, scenarios};

const COPIES: Start = Start::new(
    "COPY first /below/first\n\
     COPY a /app/a\n\
     COPY --link b /app/b\n\
     COPY --chmod=600 a /app/closed\n\
     RUN cat /app/a* /app/b > /out || true\n",
    &[("first", "first\n"), ("a", "a\n"), ("b", "b\n"), ("dir/inside", "")],
);
const OUT: &str = "RUN cat /app/a* /app/b > /out || true";
const FIRST: &str = "COPY first /below/first";

scenarios! {
    copies_over_another_parent: COPIES, |p| p.write("first", "edited"), [FIRST];
    linked_copy_over_another_parent: COPIES, |p| p.replace("COPY first /below/first", "COPY first /app/first"),
        ["COPY first /app/first", "COPY a /app/a", OUT];
    // Such a copy follows no links: a directory takes the link's place.
    linked_copy_over_a_link: COPIES, |p| p.replace("COPY --link", "RUN mv /app /real && ln -s real /app\nCOPY --link"),
        ["RUN mv /app /real && ln -s real /app", OUT];
    source_of_a_linked_copy_edited: COPIES, |p| p.write("b", "edited\n"),
        ["COPY --link b /app/b", OUT];
    destination_became_a_directory: COPIES, |p| p.replace("COPY a /app/a", "COPY dir /app/a/\nCOPY a /app/a"),
        ["COPY dir /app/a/", "COPY a /app/a", OUT];
    mode_by_flag_changed: COPIES, |p| p.replace("--chmod=600", "--chmod=640"), ["COPY --chmod=640 a /app/closed"];
    owner_by_flag_added: COPIES, |p| p.replace("--chmod=600", "--chown=5:6"), ["COPY --chown=5:6 a /app/closed"];
    source_renamed: COPIES, |p| {
        p.shell("mv a renamed");
        p.replace("COPY a /app/a", "COPY renamed /app/a");
        p.replace("COPY --chmod=600 a", "COPY --chmod=600 renamed");
    }, ["COPY renamed /app/a", "COPY --chmod=600 renamed /app/closed"];
}

const FROM: Start = Start::new(
    "FROM base AS build\n\
     WORKDIR /w\n\
     COPY src .\n\
     RUN mkdir out && cat code > out/program && cat notes > notes.out\n\
     FROM base\n\
     COPY --from=build /w/out /app/\n\
     RUN cat /app/program > /installed\n",
    &[("src/code", "code\n"), ("src/notes", "notes\n"), ("src/other", "")],
);
const BUILD: &str = "RUN mkdir out && cat code > out/program && cat notes > notes.out";

scenarios! {
    copy_from_a_stage_that_changed_elsewhere: FROM, |p| p.write("src/notes", "edited"), ["COPY src .", BUILD];
    copy_from_a_stage_that_changed_there: FROM, |p| p.write("src/code", "edited\n"),
        ["COPY src .", BUILD, "COPY --from=build /w/out /app/", "RUN cat /app/program > /installed"];
    copy_from_a_stage_whose_unread_source_changed: FROM, |p| p.write("src/other", "edited"), ["COPY src ."];
    copy_from_a_stage_that_got_another_base: FROM, |p| p.make_base("echo new > etc/new"), [];
}

const ADDED: Start = Start::new(
    "COPY first /below/first\n\
     ADD files.tar /app/\n\
     RUN cat /app/a > /out\n",
    &[("first", "first\n")],
)
.prepare("mkdir ../t; echo a > ../t/a; echo b > ../t/b; tar -cf files.tar -C ../t a b");

scenarios! {
    archive_over_another_parent: ADDED, |p| p.write("first", "edited"), ["COPY first /below/first"];
    archive_with_another_unread_file: ADDED, |p| p.shell("echo other > ../t/b; tar -cf files.tar -C ../t a b"),
        ["ADD files.tar /app/"];
    archive_with_another_read_file: ADDED, |p| p.shell("echo other > ../t/a; tar -cf files.tar -C ../t a b"),
        ["ADD files.tar /app/", "RUN cat /app/a > /out"];
    archive_over_another_file: ADDED, |p| p.replace("ADD", "RUN mkdir /app && echo below > /app/c\nADD"),
        ["RUN mkdir /app && echo below > /app/c", "ADD files.tar /app/"];
}

/// Only parts of the context are copied.
const PARTS: Start = Start::new(
    "COPY src /app/src\nCOPY *.txt /app/\nRUN cat /app/src/a /app/x.txt > /out\n",
    &[("src/a", "a\n"), ("x.txt", "x\n"), ("notes", "")],
);

scenarios! {
    what_is_not_copied_edited: PARTS, |p| p.write("notes", "edited"), [];
    ignore_file_about_what_is_not_copied: PARTS, |p| p.write(".dockerignore", "notes\n"), [];
    ignore_file_about_what_is_copied: PARTS, |p| {
        p.write("src/b", "b");
        p.write(".dockerignore", "src/b\n");
    }, [];
    pattern_has_a_new_match: PARTS, |p| p.write("y.txt", "y"), ["COPY *.txt /app/"];
}
