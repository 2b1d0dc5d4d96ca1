//! What a step is defined by, and what it is not: the Dockerfile's text, variables, flags.

use super::{Start, scenarios};

/// Two steps that know nothing of each other, variables before, between and after.
const TWO: Start = Start::new(
    "ARG VERSION=1\n\
     ENV MODE=fast\n\
     WORKDIR /app\n\
     COPY a .\n\
     COPY b .\n\
     RUN cat a > a.out\n\
     RUN cat b > b.out\n\
     ENV LATER=1\n\
     LABEL said=this\n\
     CMD [\"cat\", \"a.out\"]\n",
    &[("a", "a\n"), ("b", "b\n"), ("c", "c\n")],
);
const A: &str = "RUN cat a > a.out";
const B: &str = "RUN cat b > b.out";

scenarios! {
    env_before_a_step_changed: TWO, |p| p.replace("MODE=fast", "MODE=slow"), [A, B];
    env_between_steps_changed: TWO, |p| p.replace("RUN cat b", "ENV BETWEEN=1\nRUN cat b"), [B];
    env_after_the_steps_changed: TWO, |p| p.replace("LATER=1", "LATER=2"), [];
    env_written_otherwise: TWO, |p| p.replace("MODE=fast", "MODE=\"fast\""), [];
    env_moved_behind_the_steps: TWO, |p| {
        p.replace("ENV MODE=fast\n", "");
        p.replace("LATER=1", "LATER=1 MODE=fast");
    }, [A, B];
    arg_given_another_value: TWO, |p| p.flags(&["--build-arg", "VERSION=2"]), [A, B];
    arg_given_its_default: TWO, |p| p.flags(&["--build-arg", "VERSION=1"]), [];
    arg_that_nobody_declares: TWO, |p| p.flags(&["--build-arg", "OTHER=2"]), [];
    arg_declared_after_a_step: TWO, |p| p.replace("RUN cat b", "ARG WHEN=1\nRUN cat b"), [B];
    proxy_given: TWO, |p| p.flags(&["--build-arg", "http_proxy=http://127.0.0.1:9"]), [];
    label_changed: TWO, |p| p.replace("said=this", "said=that"), [];
    label_by_flag: TWO, |p| p.flags(&["--label", "more=1"]), [];
    command_of_the_image_changed: TWO, |p| p.replace("a.out\"]", "b.out\"]"), [];
    port_and_volume_added: TWO, |p| p.replace("CMD", "EXPOSE 80\nVOLUME /data\nCMD"), [];

    comment_and_blank_lines_added: TWO, |p| p.replace("RUN cat a", "\n# what follows is cheap\n\nRUN cat a"), [];
    instruction_in_small_letters: TWO, |p| p.replace("RUN cat a", "run cat a"), [];
    spaces_around_a_command: TWO, |p| p.replace("RUN cat a > a.out", "RUN   cat a > a.out   "), [];
    spaces_within_a_command: TWO, |p| p.replace("cat a > a.out", "cat  a > a.out"), ["RUN cat  a > a.out"];
    comment_between_continued_lines: TWO, |p| p.replace("cat a > a.out", "cat a \\\n# why\n> a.out"), [];

    copies_reordered: TWO, |p| p.replace("COPY a .\nCOPY b .\n", "COPY b .\nCOPY a .\n"), [];
    steps_reordered: TWO, |p| p.replace(
        "RUN cat a > a.out\nRUN cat b > b.out\n", "RUN cat b > b.out\nRUN cat a > a.out\n"), [];
    copy_inserted: TWO, |p| p.replace("COPY b .", "COPY c .\nCOPY b ."), ["COPY c ."];
    step_inserted: TWO, |p| p.replace("RUN cat a", "RUN echo new > /new\nRUN cat a"), ["RUN echo new > /new"];
    step_inserted_that_writes_what_another_reads: TWO, |p| p.replace("RUN cat b", "RUN echo new > b\nRUN cat b"),
        ["RUN echo new > b", B];
    step_removed: TWO, |p| p.replace("RUN cat a > a.out\n", ""), [];
    step_moved_to_its_end_with_a_new_one: TWO, |p| {
        p.replace("RUN cat a > a.out\n", "");
        p.replace("ENV LATER", "RUN cat a.out a > both || cat a > both\nRUN cat a > a.out\nENV LATER");
    }, ["RUN cat a.out a > both || cat a > both"];

    working_directory_said_again: TWO, |p| p.replace("RUN cat b", "WORKDIR /app/\nRUN cat b"), ["WORKDIR /app/"];
    working_directory_changed: TWO, |p| p.replace("RUN cat b > b.out", "WORKDIR /\nRUN cat app/b > b.out"),
        ["RUN cat app/b > b.out"];
    shell_changed: TWO, |p| p.replace("RUN cat b", "SHELL [\"sh\", \"-ec\"]\nRUN cat b"), [B];
    user_changed: TWO, |p| p.replace("RUN cat b > b.out", "USER 7\nRUN cat b > /tmp/b.out"), ["RUN cat b > /tmp/b.out"];
    host_name_for_steps_added: TWO, |p| p.flags(&["--add-host", "here:127.0.0.1"]), [A, B];
    network_taken_away: TWO, |p| p.replace("RUN cat a", "RUN --network=none cat a"),
        ["RUN --network=none cat a > a.out"];
    unread_edit_without_network: Start::new(
        "COPY . /app/\nRUN --network=none cat /app/a > /out\n", &[("a", "a\n"), ("b", "b\n")],
    ), |p| p.write("b", "edited"), ["COPY . /app/"];
}

const HEREDOC: Start = Start::new(
    "COPY a b /\n\
     RUN <<E\n\
     cat /a > /one\n\
     cat /a > /two\n\
     E\n\
     COPY <<E /written\n\
     words\n\
     E\n\
     RUN cat /written > /three\n",
    &[("a", "a\n"), ("b", "b\n")],
);

scenarios! {
    heredoc_and_an_unread_edit: HEREDOC, |p| p.write("b", "edited"), ["COPY a b /"];
    heredoc_under_another_delimiter: HEREDOC, |p| p.replace("RUN <<E\ncat /a > /one\ncat /a > /two\nE",
        "RUN <<END\ncat /a > /one\ncat /a > /two\nEND"), [];
    line_of_a_heredoc_edited: HEREDOC, |p| p.replace("cat /a > /two", "cat /a /a > /two"),
        ["RUN <<E (cat /a > /one...)"];
    heredoc_indented: HEREDOC, |p| p.replace("RUN <<E\ncat /a > /one\ncat /a > /two\nE",
        "RUN <<-E\n\tcat /a > /one\n\tcat /a > /two\n\tE"), [];
    heredoc_file_edited: HEREDOC, |p| p.replace("words", "others"), ["COPY <<E /written", "RUN cat /written > /three"];
}

const STAGES: Start = Start::new(
    "FROM base AS one\n\
     COPY shared one /\n\
     RUN cat /one > /one.out\n\
     FROM base AS two\n\
     COPY shared two /\n\
     RUN cat /shared /two > /two.out\n\
     FROM base\n\
     COPY --from=one /one.out /\n\
     COPY --from=two /two.out /\n\
     RUN cat /one.out /two.out > /all\n",
    &[("shared", "shared\n"), ("one", "one\n"), ("two", "two\n")],
);
const ONE: &str = "COPY shared one /";
const TWO_: &str = "COPY shared two /";

scenarios! {
    file_that_two_stages_copy_and_one_reads: STAGES, |p| p.write("shared", "edited\n"),
        [ONE, TWO_, "RUN cat /shared /two > /two.out", "COPY --from=two /two.out /", "RUN cat /one.out /two.out > /all"];
    file_that_one_stage_copies_and_reads: STAGES, |p| p.write("one", "edited\n"),
        [ONE, "RUN cat /one > /one.out", "COPY --from=one /one.out /", "RUN cat /one.out /two.out > /all"];
    stage_renamed: STAGES, |p| {
        p.replace("AS one", "AS first");
        p.replace("--from=one", "--from=first");
    }, [];
    stages_swapped: STAGES, |p| {
        let two = "FROM base AS two\nCOPY shared two /\nRUN cat /shared /two > /two.out\n";
        p.replace(two, "");
        p.replace("FROM base AS one", &format!("{two}FROM base AS one"));
    }, [];
    unused_stage_added: STAGES, |p| p.replace("FROM base AS one", "FROM base AS zero\nRUN false\nFROM base AS one"), [];
    one_stage_without_cache: STAGES, |p| p.flags(&["--no-cache-filter", "one"]), [ONE, "RUN cat /one > /one.out"];
}
