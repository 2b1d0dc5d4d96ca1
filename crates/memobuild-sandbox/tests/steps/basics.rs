//! What every mode must do alike.

use std::sync::Arc;

use memobuild_sandbox::{Cancel, Exit, ModeChoice, Network, SandboxError, Security, Ulimit};
use memobuild_tree::{Node, path};

use crate::support::{Printed, World, listing, meta};

/// A test that is run in each mode.
pub type Test = fn(ModeChoice);

pub const TESTS: &[(&str, Test)] = &[
    ("output_and_exit", output_and_exit),
    ("new_files_and_nothing_else", new_files_and_nothing_else),
    ("deletions", deletions),
    ("directories_replaced", directories_replaced),
    ("renames", renames),
    ("kinds_change", kinds_change),
    ("modes_and_root", modes_and_root),
    ("times_set_on_purpose_are_content", times_set_on_purpose_are_content),
    ("touched_and_left_alone_is_no_change", touched_and_left_alone_is_no_change),
    ("hard_links", hard_links),
    ("odd_names_and_depth", odd_names_and_depth),
    ("large_and_sparse_files", large_and_sparse_files),
    ("links_pipes_and_sockets", links_pipes_and_sockets),
    ("leftover_processes_die", leftover_processes_die),
    ("cancelling", cancelling),
    ("parallel_steps", parallel_steps),
    ("working_directory_env_and_stdin", working_directory_env_and_stdin),
    ("lost_content_fails_the_step", lost_content_fails_the_step),
];

/// Tests of what needs namespaces.
pub const CONFINED: &[(&str, Test)] = &[
    ("devices", devices),
    ("no_mounting", no_mounting),
    ("network_none", network_none),
    ("kernel_files_are_masked", kernel_files_are_masked),
    ("limits_and_host_name", limits_and_host_name),
    ("the_programs_own_file_is_read_only", the_programs_own_file_is_read_only),
];

fn output_and_exit(mode: ModeChoice) {
    let world = World::new(mode);
    let (result, printed) = world.try_run(&world.shell(&world.base, "echo out; echo err >&2; exit 7"));
    assert_eq!(result.unwrap().exit, Exit::Code(7));
    assert_eq!((printed.out(), printed.err()), ("out\n".into(), "err\n".into()));
    let (result, _) = world.try_run(&world.shell(&world.base, "kill -9 $$"));
    // The first process of a pid namespace is not to be killed from inside, as under BuildKit.
    let killed = if mode == ModeChoice::Chroot { Exit::Signal(9) } else { Exit::Code(0) };
    assert_eq!(result.unwrap().exit, killed);
    let (result, _) = world.try_run(&world.shell(&world.base, "sh -c 'kill -9 $$'; exit $?"));
    assert_eq!(result.unwrap().exit, Exit::Code(128 + 9));
    let mut step = world.shell(&world.base, "");
    step.argv = vec![b"no-such-tool".to_vec()];
    let (result, _) = world.try_run(&step);
    let Err(SandboxError::Start { code, reason, .. }) = result else { panic!("{result:?}") };
    assert_eq!((code, reason.as_str()), (127, "exec \"no-such-tool\": executable file not found in $PATH"));
    step.argv = vec![b"/etc".to_vec()];
    let (result, _) = world.try_run(&step);
    let Err(SandboxError::Start { code, reason, .. }) = result else { panic!("{result:?}") };
    assert_eq!((code, reason.as_str()), (126, "exec \"/etc\": permission denied"));
}

fn new_files_and_nothing_else(mode: ModeChoice) {
    let world = World::new(mode);
    let (outcome, printed) = world.run(&world.shell(&world.base, "echo hi > /o; umask; ls /proc/self/fd | wc -l"));
    if mode != ModeChoice::Chroot {
        assert_eq!(printed, "0022\n4\n");
    }
    assert_eq!(listing(&outcome), ["~/", "+/o"]);
    let tree = outcome.diff.apply(&world.base).unwrap();
    assert_eq!(world.text(&tree, "/o"), "hi\n");
    let Some(Node::File(file)) = tree.get(b"/o") else { panic!() };
    assert_eq!((file.meta.mode, file.meta.uid, file.meta.mtime.pinned), (0o644, 0, false));
}

fn deletions(mode: ModeChoice) {
    let world = World::new(mode);
    let (tree, _) = world.sh(&world.base, "mkdir -p /d/e/f; echo 1 > /d/x; echo 2 > /d/e/y");
    assert_eq!(world.changes(&tree, "rm /d/x"), ["~/d", "-/d/x"]);
    assert_eq!(world.changes(&tree, "rm -r /d/e"), ["~/d", "-/d/e"]);
    assert_eq!(world.changes(&tree, "rm -r /d"), ["~/", "-/d"]);
    assert_eq!(world.changes(&tree, "rm /d/x; echo 3 > /d/x"), ["~/d", "+/d/x"]);
    assert_eq!(world.changes(&tree, "echo t > /d/new; rm /d/new"), Vec::<String>::new());
}

fn directories_replaced(mode: ModeChoice) {
    let world = World::new(mode);
    let (tree, _) = world.sh(&world.base, "mkdir -p /d/e; echo 1 > /d/x; echo 2 > /d/e/y");
    let (after, _) = world.sh(&tree, "rm -r /d; mkdir /d; echo n > /d/n");
    let names: Vec<_> = after.dir(b"/d").unwrap().entries().keys().map(|n| path::display(n)).collect();
    assert_eq!(names, ["n"]);
    let (again, out) = world.sh(&after, "echo m > /d/m; ls /d");
    assert_eq!(out, "m\nn\n");
    assert_eq!(again.dir(b"/d").unwrap().entries().len(), 2);
    // The diff tells the whole story: the old content stays away whatever it is applied to.
    let (outcome, _) = world.run(&world.shell(&tree, "rm -r /d/e; mkdir /d/e"));
    assert!(outcome.diff.apply(&tree).unwrap().dir(b"/d/e").unwrap().entries().is_empty());
}

fn renames(mode: ModeChoice) {
    let world = World::new(mode);
    let (tree, _) = world.sh(&world.base, "mkdir -p /d/sub; echo 1 > /d/x; echo 2 > /d/sub/y; mkdir /t; echo o > /t/o");
    let (after, _) = world.sh(&tree, "mv /d /moved");
    assert!(after.get(b"/d").is_none());
    assert_eq!(world.text(&after, "/moved/sub/y"), "2\n");
    let (after, _) = world.sh(&tree, "rm -r /t; mv /d /t");
    assert_eq!(after.dir(b"/t").unwrap().entries().len(), 2);
    let (after, _) = world.sh(&tree, "mv /d/x /swap; mv /d/sub/y /d/x; mv /swap /d/sub/y");
    assert_eq!((world.text(&after, "/d/x"), world.text(&after, "/d/sub/y")), ("2\n".into(), "1\n".into()));
    // A moved file's time of writing stays what it was: no content.
    let (after, _) = world.sh(&tree, "mv /d/x /d/z");
    assert!(!after.get(b"/d/z").unwrap().meta().mtime.pinned);
}

fn kinds_change(mode: ModeChoice) {
    let world = World::new(mode);
    let (tree, _) = world.sh(&world.base, "mkdir -p /d/e; echo 1 > /d/e/x; echo f > /f; ln -s f /l");
    let (after, _) = world.sh(&tree, "rm -r /d; ln -s elsewhere /d; rm /f; mkdir /f; rm /l; echo file > /l");
    assert!(matches!(after.get(b"/d"), Some(Node::Symlink(_))));
    assert!(matches!(after.get(b"/f"), Some(Node::Dir(_))));
    assert_eq!(world.text(&after, "/l"), "file\n");
    let (back, out) = world.sh(&after, "rm /d; mkdir /d; ls -A /d");
    assert_eq!(out, "");
    assert!(matches!(back.get(b"/d"), Some(Node::Dir(_))));
}

fn modes_and_root(mode: ModeChoice) {
    let world = World::new(mode);
    let (tree, _) = world
        .sh(&world.base, "echo f > /f; mkdir /secret; echo s > /secret/s; chmod 0 /secret/s /secret; chmod 4755 /f");
    assert_eq!(tree.get(b"/f").unwrap().meta().mode, 0o4755);
    assert_eq!(tree.get(b"/secret").unwrap().meta().mode, 0);
    assert_eq!(world.text(&tree, "/secret/s"), "s\n");
    let (outcome, out) = world.run(&world.shell(&tree, "stat -c %a /f /secret; cat /secret/s; chmod 700 /"));
    assert_eq!(out, "4755\n0\ns\n");
    assert_eq!(listing(&outcome), ["~/"]);
    assert_eq!(outcome.diff.apply(&tree).unwrap().root().meta().mode, 0o700);
    let (_, out) = world.sh(&outcome.diff.apply(&tree).unwrap(), "stat -c '%a %Y' /");
    assert!(out.starts_with("700 "), "{out}");
}

fn times_set_on_purpose_are_content(mode: ModeChoice) {
    let world = World::new(mode);
    let (tree, _) =
        world.sh(&world.base, "echo a > /a; touch -d @1000000000 /p; touch -d '2000-01-01 00:00:00' /q; cp -p /a /c");
    let time = |at: &str| tree.get(at.as_bytes()).unwrap().meta().mtime;
    assert_eq!((time("/p").secs, time("/p").pinned), (1_000_000_000, true));
    assert!(time("/q").pinned && !time("/a").pinned && !time("/c").pinned);
    // A mode changed later leaves time and its meaning alone.
    let (after, _) = world.sh(&tree, "chmod 600 /a /p; stat -c %Y /p; cp -p /a /d; cp -p /p /r");
    let later = |at: &str| after.get(at.as_bytes()).unwrap().meta().mtime;
    assert_eq!(later("/a"), time("/a"));
    assert_eq!((later("/p"), later("/r")), (time("/p"), time("/p")));
    assert!(!later("/d").pinned);
    // Equal work gives equal identities.
    let (once, _) = world.sh(&world.base, "echo a > /a; mkdir /d; echo b > /d/b; touch -d @5 /p");
    let (twice, _) = world.sh(&world.base, "echo a > /a; mkdir /d; echo b > /d/b; touch -d @5 /p");
    assert_eq!(once.identity(), twice.identity());
    assert_ne!(once.full_digest(), twice.full_digest());
}

fn touched_and_left_alone_is_no_change(mode: ModeChoice) {
    let world = World::new(mode);
    let (tree, _) = world.sh(&world.base, "mkdir /d; echo x > /d/x");
    assert_eq!(world.changes(&tree, "cat /d/x; ls -lR / > /dev/null; : >> /d/x; chmod 644 /d/x"), Vec::<String>::new());
    assert_eq!(world.changes(&tree, "touch /d/t; rm /d/t; mktemp > /dev/null; rm /tmp/*"), Vec::<String>::new());
    assert_eq!(world.changes(&tree, "chmod 600 /d/x"), ["/d", "+/d/x"]);
}

fn hard_links(mode: ModeChoice) {
    let world = World::new(mode);
    let (outcome, _) =
        world.run(&world.shell(&world.base, "mkdir /d; echo x > /d/a; ln /d/a /d/b; ln /d/a /c; echo lone > /l"));
    let tree = outcome.diff.apply(&world.base).unwrap();
    let link = |at: &str| match tree.get(at.as_bytes()) {
        Some(Node::File(file)) => file.link,
        other => panic!("{other:?}"),
    };
    assert!(link("/c").is_some() && link("/c") == link("/d/a") && link("/c") == link("/d/b"));
    assert_eq!(link("/l"), None);
    let (after, out) = world.sh(&tree, "stat -c %h /c /l; ln /l /m; echo y >> /c; stat -c %h /l");
    assert_eq!(out, "3\n1\n2\n");
    let (Some(Node::File(l)), Some(Node::File(m))) = (after.get(b"/l"), after.get(b"/m")) else { panic!() };
    assert!(l.link.is_some() && l.link == m.link);
    assert_eq!(world.text(&after, "/c"), "x\ny\n");
}

fn odd_names_and_depth(mode: ModeChoice) {
    let world = World::new(mode);
    let long = "n".repeat(255);
    let part = "e".repeat(200);
    // Paths longer than the kernel takes at once are made from the bottom up.
    let chain = vec![part.as_str(); 15].join("/");
    let script = format!(
        "echo 1 > '/new
line'; printf 2 > $(printf '/\\377\\376'); echo 3 > '/-sp ace'; echo 4 > /{long}; cd /
         mkdir /c0; echo deep > /c0/f
         for i in 1 2 3 4; do mkdir -p /c$i/{chain}; mv /c$((i-1)) /c$i/{chain}/next; done; mv /c4 /deep"
    );
    let (tree, _) = world.sh(&world.base, &script);
    assert_eq!(world.text(&tree, "/new\nline"), "1\n");
    assert!(tree.get(b"/\xff\xfe").is_some());
    assert_eq!(world.text(&tree, &format!("/{long}")), "4\n");
    let step = format!("/{chain}/next");
    let deep = format!("/deep{}/f", step.repeat(4));
    assert!(deep.len() > 12_000);
    assert_eq!(world.text(&tree, &deep), "deep\n");
    let (after, out) = world.sh(&tree, "cat /new*; cat /deep/../-sp*; touch /deep/here");
    assert_eq!(out, "1\n3\n");
    assert_eq!(after.dir(b"/deep").unwrap().entries().len(), 2);
}

fn large_and_sparse_files(mode: ModeChoice) {
    let world = World::new(mode);
    let script = "dd if=/dev/urandom of=/big bs=1k count=300 2>/dev/null; ln /big /big2; dd if=/dev/zero of=/sparse bs=1 count=1 seek=50M 2>/dev/null; chmod 640 /big; sha256sum < /big";
    let (tree, sum) = world.sh(&world.base, script);
    let (Some(Node::File(big)), Some(Node::File(sparse))) = (tree.get(b"/big"), tree.get(b"/sparse")) else { panic!() };
    assert_eq!((big.size, big.meta.mode, sparse.size), (300 * 1024, 0o640, 50 * 1024 * 1024 + 1));
    assert!(big.link.is_some());
    let (after, again) =
        world.sh(&tree, "sha256sum < /big; tail -c 1 /sparse | wc -c; echo more >> /big2; chmod 600 /sparse");
    assert_eq!(again, format!("{sum}1\n"));
    assert_eq!(after.get(b"/sparse").unwrap().meta().mode, 0o600);
    let (_, out) = world.sh(&after, "tail -c 5 /big2; tail -c 5 /big | sha256sum > /dev/null; wc -c < /sparse");
    assert_eq!(out, "more\n52428801\n");
}

fn links_pipes_and_sockets(mode: ModeChoice) {
    let world = World::new(mode);
    let (tree, _) = world.sh(&world.base, "ln -s /nowhere /l; mkfifo /p; nc -lU /s < /dev/null & sleep 0.2; true");
    assert!(matches!(tree.get(b"/l"), Some(Node::Symlink(_))));
    assert!(matches!(tree.get(b"/p"), Some(Node::Special(_))));
    assert!(tree.get(b"/s").is_none());
    let (after, out) = world.sh(&tree, "readlink /l; test -p /p && echo pipe; ln -sfn /other /l");
    assert_eq!(out, "/nowhere\npipe\n");
    assert!(matches!(after.get(b"/l"), Some(Node::Symlink(l)) if &*l.target == b"/other"));
}

fn leftover_processes_die(mode: ModeChoice) {
    let world = World::new(mode);
    let start = std::time::Instant::now();
    let (tree, _) = world.sh(&world.base, "(setsid sleep 100; echo late > /late) & (sleep 100 &) ; echo done > /o");
    assert!(start.elapsed().as_secs() < 20);
    assert!(tree.get(b"/late").is_none() && tree.get(b"/o").is_some());
}

fn cancelling(mode: ModeChoice) {
    let world = World::new(mode);
    world.sandbox.mode().unwrap();
    let (cancel, start) = (Cancel::new(), std::time::Instant::now());
    let later = cancel.clone();
    let thread = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(300));
        later.cancel();
    });
    let step = world.shell(&world.base, "trap '' TERM INT; sleep 100");
    let result = world.sandbox.run(&step, &world.contents(), &Printed::default(), &cancel);
    assert!(matches!(result, Err(SandboxError::Cancelled)), "{result:?}");
    assert!(start.elapsed().as_secs() < 20);
    thread.join().unwrap();
    // The next one is not disturbed.
    assert_eq!(world.sh(&world.base, "echo on").1, "on\n");
}

fn parallel_steps(mode: ModeChoice) {
    let world = Arc::new(World::new(mode));
    let threads: Vec<_> = (0..6)
        .map(|n| {
            let world = world.clone();
            std::thread::spawn(move || {
                let (tree, out) = world.sh(&world.base, &format!("echo {n} > /n; cat /n; find / -xdev > /dev/null"));
                assert_eq!((out, world.text(&tree, "/n")), (format!("{n}\n"), format!("{n}\n")));
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

fn working_directory_env_and_stdin(mode: ModeChoice) {
    let world = World::new(mode);
    let mut step = world.shell(&world.base, "echo $PWD $A $HOME; cat; touch here");
    step.cwd = b"/var/tmp".to_vec();
    step.env = vec![b"A=a b".to_vec()];
    let (outcome, out) = world.run(&step);
    assert_eq!(out, "/var/tmp a b /root\n");
    assert_eq!(listing(&outcome), ["/var", "~/var/tmp", "+/var/tmp/here"]);
    step.cwd = b"/missing/too".to_vec();
    let (outcome, out) = world.run(&step);
    assert_eq!(out, "/missing/too a b /root\n");
    assert_eq!(listing(&outcome), ["~/", "~/missing", "~/missing/too", "+/missing/too/here"]);
    step.cwd = b"/bin/sh".to_vec();
    let (result, _) = world.try_run(&step);
    assert!(matches!(result, Err(SandboxError::Start { code: 126, .. })), "{result:?}");
}

fn lost_content_fails_the_step(mode: ModeChoice) {
    let world = World::new(mode);
    let mut tree = world.base.clone();
    let node = world.file(b"soon gone", 0o644);
    let Node::File(file) = &node else { panic!() };
    let content = file.content;
    tree.put(b"/gone", node, &|| meta(0o755));
    world.store.forget(&content);
    let (result, _) = world.try_run(&world.shell(&tree, "cat /gone 2>/dev/null || echo default > /o; exit 0"));
    assert!(result.is_err(), "{result:?}");
    // Other steps go on.
    assert_eq!(world.sh(&world.base, "echo on").1, "on\n");
}

fn devices(mode: ModeChoice) {
    let world = World::new(mode);
    let script = "for n in null zero full random urandom tty; do test -c /dev/$n || echo no $n; done
        for n in fd stdin stdout stderr ptmx; do test -L /dev/$n || echo no $n; done
        test -d /dev/shm && echo shm; echo x > /dev/null; touch /dev/shm/q; stat -c '%a %u:%g' /dev/shm
        head -c 3 /dev/zero | wc -c; mknod /tmp/sda b 8 0 && { dd if=/tmp/sda of=/dev/null bs=1 count=1 2>/dev/null && echo open || echo denied; }; rm -f /tmp/sda";
    let (outcome, out) = world.run(&world.shell(&world.base, script));
    assert_eq!(out, "shm\n1777 0:0\n3\ndenied\n");
    assert_eq!(listing(&outcome), Vec::<String>::new());
}

fn no_mounting(mode: ModeChoice) {
    let world = World::new(mode);
    let script = "mount -t tmpfs t /tmp 2>/dev/null && echo mounted; umount /proc 2>/dev/null && echo unmounted; unshare -m true 2>/dev/null && echo unshared; true";
    assert_eq!(world.sh(&world.base, script).1, "");
    let mut step = world.shell(&world.base, "mount -t tmpfs t /tmp && echo mounted");
    step.security = Security::Insecure;
    assert_eq!(world.run(&step).1, "mounted\n");
}

fn network_none(mode: ModeChoice) {
    let world = World::new(mode);
    let mut step = world.shell(
        &world.base,
        "ls /sys/class/net; grep -c : /proc/net/dev; ping -c 1 -w 2 127.0.0.1 > /dev/null && echo up",
    );
    step.network = Network::None;
    assert_eq!(world.run(&step).1, "lo\n1\nup\n");
}

fn kernel_files_are_masked(mode: ModeChoice) {
    let world = World::new(mode);
    let script = "wc -c < /proc/keys; echo x > /proc/sys/kernel/hostname; echo x > /sys/x; echo $$; ls /proc/1/fd; readlink /proc/1/root";
    let (result, printed) = world.try_run(&world.shell(&world.base, script));
    assert!(result.is_ok());
    // The command is the first process, as under BuildKit, and holds nothing but its standard streams.
    assert_eq!(printed.out(), "0\n1\n0\n1\n2\n/\n", "{}", printed.err());
    assert_eq!(printed.err().matches("ead-only file system").count(), 2, "{}", printed.err());
    let script = "ps -o pid | wc -l; grep -c ' / ' /proc/self/mountinfo; grep CapEff /proc/self/status; grep Seccomp: /proc/self/status";
    let (_, out) = world.sh(&world.base, script);
    assert!(out.contains("00000000a80425fb"), "{out}");
    assert!(out.contains("Seccomp:\t2"), "{out}");
}

fn limits_and_host_name(mode: ModeChoice) {
    let world = World::new(mode);
    let mut step =
        world.shell(&world.base, "hostname; ulimit -n; df -k /dev/shm | tail -1 | awk '{print $2}'; cat /etc/hosts");
    step.ulimits = vec![Ulimit { name: "nofile".into(), soft: 100, hard: 200 }];
    step.shm_size = Some(1 << 20);
    step.extra_hosts = vec![memobuild_sandbox::Host { ip: "10.1.2.3".into(), name: "db".into() }];
    let (outcome, out) = world.run(&step);
    assert_eq!(
        out,
        "buildkitsandbox\n100\n1024\n127.0.0.1\tlocalhost buildkitsandbox\n::1\tlocalhost ip6-localhost ip6-loopback\n10.1.2.3\tdb\n"
    );
    assert_eq!(listing(&outcome), Vec::<String>::new());
    step.argv = [b"true".to_vec()].to_vec();
    step.ulimits = vec![Ulimit { name: "nonsense".into(), soft: 1, hard: 1 }];
    assert!(world.try_run(&step).0.is_err());
}

/// What `/proc/self/exe` means to whatever a step makes of pid 1's program: read-only even where it isn't being executed.
fn the_programs_own_file_is_read_only(mode: ModeChoice) {
    let world = World::new(mode);
    let mark = world.dir.path().display().to_string();
    let first = || {
        let is_it = |pid: &str| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.windows(mark.len()).any(|w| w == mark.as_bytes()) && line.starts_with(b"/bin/sh")
        };
        let pids = std::fs::read_dir("/proc").unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        let status = pids
            .filter(|pid| is_it(pid))
            .find_map(|pid| std::fs::read_to_string(format!("/proc/{pid}/status")).ok())?;
        status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse::<u32>().ok())
    };
    std::thread::scope(|scope| {
        let running = scope.spawn(|| world.sh(&world.base, &format!(": {mark}; sleep 3; true")));
        let pid = loop {
            assert!(!running.is_finished(), "the step was not seen");
            if let Some(pid) = first() {
                break pid;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        };
        let writable = rustix::fs::access(format!("/proc/{pid}/exe"), rustix::fs::Access::WRITE_OK);
        running.join().unwrap();
        assert_eq!(writable, Err(rustix::io::Errno::ROFS));
    });
}
