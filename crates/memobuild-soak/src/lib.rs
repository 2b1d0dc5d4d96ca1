//! Never a wrong hit: random projects, random edits, and after each edit an incremental build that must equal a build
//! from nothing. A test of the program `memobuild`, which it runs as anyone would; it uses none of its crates, and reads
//! images with code of its own.
//!
//! # What happens
//!
//! A seed makes a project ([`generate`]): some 80 files in 13 directories, two or three stages, and 20 to 40 steps that
//! are drawn from a catalogue of ways to depend on files ([`catalogue`]). They stand on a base image that is made of
//! this machine's busybox, or, in one project of five, of its compiler, make, python3 and GNU tools ([`bases`]), and
//! write what they see into the image.
//!
//! Then the project is edited ([`edits`]): contents, new and deleted files, renames, modes, targets of links,
//! directories that become files, another base image, steps that come, go and move, values of ENV, ARG and LABEL,
//! .dockerignore, a touch without an edit, and a return to an earlier state, whose results are known. About half of the
//! edits are aimed at something that a step of the project must notice.
//!
//! After each edit the project is built in its long-lived cache, and in one that is empty ([`build`]). Both must end
//! with the same exit code and give equal images ([`image`], [`mod@compare`]): names, kinds, modes, owners, extended
//! attributes, contents, groups of hard links, times that were set on purpose; and equal configs and histories, but for
//! times. On a difference the first paths are shown with both sides, the edits that led there, and how to have it again:
//! `memobuild-soak --seed N --edits K --keep`. A project's edits depend on its seed alone, and on what this machine can
//! run. A third build, from nothing as well, tells a wrong hit from a step that is no function of its files.
//!
//! # What is left out, since it is no function of a step's files
//!
//! Steps of the catalogue don't look at:
//!
//! - the time of day, random numbers, process ids, the network, free space, the number of processors, /proc and /sys
//!   (but for a process's own `exe`, `fd` and `comm`);
//! - mtimes of files that COPY brings: a touch or a fresh clone changes them without an edit. So nothing compares them,
//!   no archive that is kept is made of such files, and `cp -p`, `cp -a` and `tar` may take them along but the comparison
//!   of images leaves them out;
//! - mtimes of files that a step wrote, as numbers. Their *order* is looked at, where the files are written by different
//!   steps of one stage that wait for the clock of files to go on; not the order of files of one step (one tick of that
//!   clock) nor of stages that run side by side. Busybox's own `-nt` and `-newer` count whole seconds and are used for
//!   times that were set far apart;
//! - bytecode of python that names the time at which its source was written: sources get a time on purpose first;
//! - inode and device numbers, sizes and link counts of directories, the order in which a directory lists its names;
//! - block counts of files that the same step has just written (a disk decides them later), or of any, where steps see a
//!   real disk and not a served tree;
//! - what is in a cache mount: steps use it so that it can't show.
//!
//! # Mutations
//!
//! A test that can't fail shows nothing. With `MEMOBUILD_TEST_DROP_FACT=KIND` in the environment, incremental builds (and
//! only these) are run with the same variable, which tells a debug build of memobuild to leave one kind of fact out of its
//! results; the test must then find a difference. `scripts/soak --mutations` goes through [`FACTS`].
#![forbid(unsafe_code)]

pub mod bases;
pub mod build;
pub mod catalogue;
pub mod compare;
pub mod context;
pub mod edits;
mod error;
pub mod files;
pub mod generate;
pub mod image;
pub mod project;
pub mod rng;
mod soak;

pub use error::SoakError;
pub use soak::{Options, Summary, run};

/// Kinds of facts that a debug build of memobuild can leave out, and what of them.
pub const FACTS: [(&str, &str); 17] = [
    ("absent", "names that were looked up and not there"),
    ("file", "regular files"),
    ("looked", "regular files that were looked at and not read"),
    ("dir", "directories that were looked up or walked through"),
    ("link", "symbolic links"),
    ("special", "pipes and devices"),
    ("listing", "names in directories that were listed"),
    ("mount", "everything in read-only bind mounts"),
    ("root", "the root directory itself"),
    ("destination", "what COPY, ADD and WORKDIR find where they land"),
    ("user", "the ids, groups and home behind the names in USER and --chown"),
    ("mode", "permission bits"),
    ("owner", "owners and groups"),
    ("xattr", "extended attributes"),
    ("mtime", "times that were set on purpose"),
    ("linkgroup", "which names are one file"),
    ("order", "the order in which files were written, and the check of times"),
];
