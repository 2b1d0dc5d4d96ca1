//! RUN --mount.

use super::{Start, scenarios};

const BOUND: Start = Start::new(
    "RUN --mount=type=bind,target=/src cat /src/a > /out\n\
     RUN --mount=type=bind,source=d,target=/d ls /d > /list\n",
    &[("a", "a\n"), ("b", "b\n"), ("d/x", "x\n")],
);
const READ: &str = "RUN --mount=type=bind,target=/src cat /src/a > /out";
const LIST: &str = "RUN --mount=type=bind,source=d,target=/d ls /d > /list";

scenarios! {
    bound_context_and_an_unread_edit: BOUND, |p| p.write("b", "edited"), [];
    bound_context_and_a_read_edit: BOUND, |p| p.write("a", "edited"), [READ];
    bound_context_and_a_new_file_in_a_listed_directory: BOUND, |p| p.write("d/y", "y"), [LIST];
    bound_context_and_a_mode: BOUND, |p| p.shell("chmod 600 a"), [READ];
    bound_context_touched: BOUND, |p| p.shell("touch a d/x"), [];
    mount_elsewhere: BOUND, |p| p.replace("target=/src cat /src/a", "target=/ctx cat /ctx/a"),
        ["RUN --mount=type=bind,target=/ctx cat /ctx/a > /out"];
}

const FROM: Start = Start::new(
    "FROM base AS build\n\
     COPY a b /made/\n\
     FROM base\n\
     RUN --mount=type=bind,from=build,source=/made,target=/m cat /m/a > /out\n",
    &[("a", "a\n"), ("b", "b\n")],
);

scenarios! {
    bound_stage_and_an_unread_edit: FROM, |p| p.write("b", "edited"), ["COPY a b /made/"];
    bound_stage_and_a_read_edit: FROM, |p| p.write("a", "edited"),
        ["COPY a b /made/", "RUN --mount=type=bind,from=build,source=/made,target=/m cat /m/a > /out"];
}

/// A mount that may be written to: reused over equal files only.
const WRITABLE: Start = Start::new(
    "COPY c /\nRUN --mount=type=bind,target=/src,rw cat /src/a > /out && echo x > /src/new\n",
    &[("a", "a\n"), ("b", "b\n"), ("c", "c\n")],
);
const WRITES: &str = "RUN --mount=type=bind,target=/src,rw cat /src/a > /out && echo x > /src/new";

scenarios! {
    writable_mount_and_nothing_changed: WRITABLE, |_| (), [];
    writable_mount_and_any_edit: WRITABLE, |p| p.write("b", "edited"), [WRITES];
}

/// What lies in a cache, what a secret says, what stands on a tmpfs: no inputs.
const SECRET: Start = Start::new(
    "COPY a b /\n\
     RUN --mount=type=cache,target=/c cat /a > /out; date > /c/when\n\
     RUN --mount=type=secret,id=key cat /a > /out2\n\
     RUN --mount=type=tmpfs,target=/t cat /a > /t/x; cat /t/x > /out3\n",
    &[("a", "a\n"), ("b", "b\n"), ("../key", "one")],
);

scenarios! {
    mounts_and_an_unread_edit: SECRET, |p| p.write("b", "edited"), ["COPY a b /"];
    mounts_and_a_read_edit: SECRET, |p| p.write("a", "edited"),
        ["COPY a b /", "RUN --mount=type=cache,target=/c cat /a > /out; date > /c/when",
         "RUN --mount=type=secret,id=key cat /a > /out2",
         "RUN --mount=type=tmpfs,target=/t cat /a > /t/x; cat /t/x > /out3"];
    another_secret: SECRET, |p| {
        p.write("../key", "two");
        p.flags(&["--secret", "id=key,src=../key"]);
    }, [];
    cache_written_by_another_step: SECRET, |p| p.replace("COPY a b /\n",
        "COPY a b /\nRUN --mount=type=cache,target=/c echo more > /c/more\n"),
        ["RUN --mount=type=cache,target=/c echo more > /c/more"];
    cache_with_another_name: SECRET, |p| p.replace("type=cache,target=/c", "type=cache,id=own,target=/c"),
        ["RUN --mount=type=cache,id=own,target=/c cat /a > /out; date > /c/when"];
}
