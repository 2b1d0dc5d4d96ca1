//! Another base image, users, and files that every program reads.

use super::{Start, scenarios};

const ON_BASE: Start = Start::new(
    "WORKDIR /app\n\
     COPY . .\n\
     RUN cat a > a.out\n\
     RUN cat /etc/os > os.out\n\
     RUN ls /opt > opt.out\n\
     RUN greet > greet.out\n\
     COPY a /srv/\n\
     COPY a /opt/deep/er/\n",
    &[("a", "a\n")],
)
.base(
    "echo one > etc/os; mkdir opt srv; echo x > opt/x; echo y > opt/y; echo z > usr/unread
    printf '#!/bin/sh\necho hello\n' > usr/bin/greet; chmod 755 usr/bin/greet",
);
const OS: &str = "RUN cat /etc/os > os.out";
const OPT: &str = "RUN ls /opt > opt.out";
const GREET: &str = "RUN greet > greet.out";
const KEEP: &str = "echo one > etc/os; mkdir opt srv; echo x > opt/x; echo y > opt/y; echo z > usr/unread
    printf '#!/bin/sh\necho hello\n' > usr/bin/greet; chmod 755 usr/bin/greet;";

/// The base image of [`ON_BASE`], changed.
fn base(project: &crate::support::Project, change: &str) {
    project.make_base(&format!("{KEEP}{change}"));
}

scenarios! {
    base_has_another_file_that_nobody_read: ON_BASE, |p| base(p, "echo other > usr/unread"), [];
    base_has_a_new_file_in_an_unlisted_directory: ON_BASE, |p| base(p, "echo new > etc/new"), [];
    base_has_another_file_that_a_step_read: ON_BASE, |p| base(p, "echo two > etc/os"), [OS];
    base_has_a_new_file_in_a_listed_directory: ON_BASE, |p| base(p, "echo new > opt/new"), [OPT];
    base_lost_a_program_that_nobody_ran: ON_BASE, |p| base(p, "rm bin/vi"), [];
    base_has_a_program_earlier_on_the_path: ON_BASE,
        |p| base(p, "mkdir -p usr/local/bin; printf '#!/bin/sh\\necho shadow\\n' > usr/local/bin/greet
            chmod 755 usr/local/bin/greet"), [GREET];
    base_has_another_owner_of_a_file_that_nobody_read: ON_BASE, |p| base(p, "chmod 600 usr/unread"), [];
    base_has_the_working_directory: ON_BASE, |p| base(p, "mkdir -m 700 app"),
        ["WORKDIR /app", "COPY . .", "RUN cat a > a.out", OS, OPT, GREET];
    base_has_the_directory_of_a_copy: ON_BASE, |p| base(p, "mkdir -p -m 700 opt/deep"), [OPT, "COPY a /opt/deep/er/"];
    base_has_a_link_where_a_copy_goes: ON_BASE, |p| base(p, "rmdir srv; ln -s usr srv"), ["COPY a /srv/"];
}

const USERS: Start = Start::new(
    "COPY --chown=web a /srv/\n\
     USER web\n\
     WORKDIR /home/web/app\n\
     RUN id -u > uid\n\
     RUN touch made\n",
    &[("a", "a\n")],
)
.base(
    "echo web:x:33:33::/home/web:/bin/sh >> etc/passwd; echo web:x:33: >> etc/group
    mkdir srv home/web; chmod 777 home/web",
);

scenarios! {
    /// A user is added. `id` reads the file; other steps don't.
    another_user_was_added: USERS, |p| p.make_base(
        "echo db:x:44:44::/:/bin/sh >> etc/passwd; echo web:x:33:33::/home/web:/bin/sh >> etc/passwd
        echo web:x:33: >> etc/group; mkdir srv home/web; chmod 777 home/web"), ["RUN id -u > uid"];
    the_user_has_another_number: USERS, |p| p.make_base(
        "echo web:x:34:33::/home/web:/bin/sh >> etc/passwd; echo web:x:33: >> etc/group
        mkdir srv home/web; chmod 777 home/web"),
        ["COPY --chown=web a /srv/", "WORKDIR /home/web/app", "RUN id -u > uid", "RUN touch made"];
    the_user_has_another_home: USERS, |p| p.make_base(
        "echo web:x:33:33::/srv:/bin/sh >> etc/passwd; echo web:x:33: >> etc/group
        mkdir srv home/web; chmod 777 home/web"), ["RUN id -u > uid", "RUN touch made"];
    the_user_is_in_another_group_too: USERS, |p| p.make_base(
        "echo web:x:33:33::/home/web:/bin/sh >> etc/passwd; echo web:x:33: >> etc/group; echo adm:x:4:web >> etc/group
        mkdir srv home/web; chmod 777 home/web"), ["RUN id -u > uid", "RUN touch made"];
    user_made_by_a_step_gets_another_number: Start::new(
        "COPY ids /ids\n\
         RUN echo web:x:$(cat /ids):0::/:/bin/sh >> /etc/passwd\n\
         USER web\n\
         RUN touch /tmp/made\n",
        &[("ids", "51")],
    ), |p| p.write("ids", "52"),
        ["COPY ids /ids", "RUN echo web:x:$(cat /ids):0::/:/bin/sh >> /etc/passwd", "RUN touch /tmp/made"];
}

/// Every dynamic program reads the loader's cache; `ldconfig` stands for whatever writes it.
const LOADER: Start = Start::new(
    "COPY libs comment /l/\n\
     RUN sort /l/libs > /etc/ld.so.cache\n\
     RUN cat /etc/ld.so.cache > /dynamic\n\
     RUN echo static > /static\n",
    &[("libs", "a\nb\n"), ("comment", "")],
);
const LDCONFIG: &str = "RUN sort /l/libs > /etc/ld.so.cache";

scenarios! {
    ldconfig_with_an_equal_outcome: LOADER, |p| p.write("libs", "b\na\n"), ["COPY libs comment /l/", LDCONFIG];
    ldconfig_with_another_outcome: LOADER, |p| p.write("libs", "a\nb\nc\n"),
        ["COPY libs comment /l/", LDCONFIG, "RUN cat /etc/ld.so.cache > /dynamic"];
    ldconfig_that_did_not_see_the_change: LOADER, |p| p.write("comment", "other"), ["COPY libs comment /l/"];
}
