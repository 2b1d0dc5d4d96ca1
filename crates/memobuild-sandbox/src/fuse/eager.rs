//! When a listing also tells what each name is (READDIRPLUS), which spares a program that looks at every file of every
//! directory a question for each: `find -size`, `du`, `ls -lR`, `tar`.
//!
//! Once told, the kernel asks no more, so every file of such a listing counts as looked at: a few more facts than the
//! step may have needed, never fewer. So it is done only after the step has been seen to look at nearly all files of the
//! directories that it lists, and now and then it is not, to see whether that is still so.

/// Directories with fewer names show nothing.
const LEAST: u32 = 8;
/// Names of one directory after which the rest of it may be told eagerly.
const ENOUGH: u32 = 64;
/// Directories in a row whose files were looked at, before more are told eagerly.
const STREAK: u32 = 2;
/// Of so many directories one is listed plainly.
const SAMPLE: u32 = 32;

/// What was seen so far.
#[derive(Debug, Default)]
pub(super) struct Eagerness {
    /// The directory listed last, names that were listed plainly, and how many of them were looked up since.
    last: u64,
    plain: u32,
    looked: u32,
    eager: bool,
    streak: u32,
    turns: u32,
}

impl Eagerness {
    /// A directory is listed, from its beginning or on from where the listing before ended: whether eagerly.
    pub(super) fn listing(&mut self, dir: u64, from_start: bool) -> bool {
        if !from_start {
            return dir == self.last && (self.eager || self.plain >= ENOUGH && self.most());
        }
        if self.plain >= LEAST {
            self.streak = if self.most() { self.streak + 1 } else { 0 };
        }
        self.turns = self.turns.wrapping_add(1);
        self.eager = self.streak >= STREAK && !self.turns.is_multiple_of(SAMPLE);
        (self.last, self.plain, self.looked) = (dir, 0, 0);
        self.eager
    }

    /// Seven of eight.
    fn most(&self) -> bool {
        u64::from(self.looked) * 8 >= u64::from(self.plain) * 7
    }

    /// A name was listed plainly.
    pub(super) fn listed(&mut self) {
        self.plain += 1;
    }

    /// A name that is there was looked up in a directory.
    pub(super) fn looked_up(&mut self, dir: u64) {
        if dir == self.last {
            self.looked += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lists a directory of so many names and looks at some; says whether it was listed eagerly.
    fn walk(eagerness: &mut Eagerness, dir: u64, names: u32, looked: u32) -> bool {
        let eager = eagerness.listing(dir, true);
        if !eager {
            (0..names).for_each(|_| eagerness.listed());
            (0..looked).for_each(|_| eagerness.looked_up(dir));
        }
        eager
    }

    #[test]
    fn who_looks_at_everything_is_told_before_it_asks() {
        let mut eagerness = Eagerness::default();
        let told: Vec<bool> = (1..40).map(|dir| walk(&mut eagerness, dir, 100, 99)).collect();
        assert_eq!(told[..4], [false, false, true, true]);
        assert_eq!(told.iter().filter(|eager| !**eager).count(), 3, "two to learn, one to see that it is still so");
    }

    #[test]
    fn who_only_lists_is_not() {
        let mut eagerness = Eagerness::default();
        assert!((1..100).all(|dir| !walk(&mut eagerness, dir, 100, dir as u32 % 50)));
    }

    #[test]
    fn who_stops_looking_is_found_out() {
        let mut eagerness = Eagerness::default();
        for dir in 1..10 {
            walk(&mut eagerness, dir, 100, 100);
        }
        let told = (10..100).filter(|dir| walk(&mut eagerness, *dir, 100, 0)).count();
        assert!(told < SAMPLE as usize, "{told}");
    }

    #[test]
    fn small_directories_show_nothing() {
        let mut eagerness = Eagerness::default();
        assert!((1..100).all(|dir| !walk(&mut eagerness, dir, 3, 3)));
    }

    #[test]
    fn a_large_directory_is_told_eagerly_once_its_first_files_were_looked_at() {
        let mut eagerness = Eagerness::default();
        assert!(!walk(&mut eagerness, 5, 200, 198));
        assert!(eagerness.listing(5, false));
        assert!(!eagerness.listing(6, false), "another one");
    }
}
