//! When a listing also tells what each name is (READDIRPLUS), which spares a program that looks at every file of every
//! directory a question for each: `find -size`, `du`, `ls -lR`, `tar`.
//!
//! Once told, the kernel asks no more, so every file of such a listing counts as looked at: a few more facts than the
//! step may have needed, never fewer. So it is done only after the step has been seen to look at nearly all files of the
//! directories that it lists, and of some directories a few names are not told, to see whether that is still so.

/// Names that were looked at, in directories in a row of which nearly all were, before more are told eagerly.
const ENOUGH: u32 = 64;
/// Of so many directories one has names that are not told, and how many.
const SAMPLE: u32 = 8;
const SAMPLED: u32 = 8;

/// What was seen so far.
#[derive(Debug, Default)]
pub(super) struct Eagerness {
    /// The directory listed last, names of it that were not told, and how many of them were looked up since.
    last: u64,
    plain: u32,
    looked: u32,
    /// Names in a row that were looked at.
    streak: u32,
    /// Whether names are told, and how many are not before the next is.
    eager: bool,
    sampled: u32,
    turns: u32,
}

impl Eagerness {
    /// A directory is listed, from its beginning or on from where the listing before ended.
    pub(super) fn listing(&mut self, dir: u64, from_start: bool) {
        if !from_start {
            self.eager = dir == self.last && (self.eager || self.plain >= ENOUGH && self.most());
            return;
        }
        self.streak = if self.most() { self.streak.saturating_add(self.looked) } else { 0 };
        self.eager = self.streak >= ENOUGH;
        self.turns = self.turns.wrapping_add(1);
        self.sampled = if self.turns.is_multiple_of(SAMPLE) { SAMPLED } else { 0 };
        (self.last, self.plain, self.looked) = (dir, 0, 0);
    }

    /// Whether the next name of it, of which the kernel knows nothing yet, is told.
    pub(super) fn tells(&mut self) -> bool {
        let tells = self.eager && self.sampled == 0;
        if !tells {
            self.sampled = self.sampled.saturating_sub(1);
            self.plain += 1;
        }
        tells
    }

    /// Seven of eight.
    fn most(&self) -> bool {
        u64::from(self.looked) * 8 >= u64::from(self.plain) * 7
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

    /// Lists a directory of so many names and looks at a part of those that are not told; says how many were told.
    fn walk(eagerness: &mut Eagerness, dir: u64, names: u32, looked: impl Fn(u32) -> u32) -> u32 {
        eagerness.listing(dir, true);
        let told = (0..names).filter(|_| eagerness.tells()).count() as u32;
        (0..looked(names - told)).for_each(|_| eagerness.looked_up(dir));
        told
    }

    #[test]
    fn who_looks_at_everything_is_told_before_it_asks() {
        let mut eagerness = Eagerness::default();
        let told: Vec<u32> = (1..18).map(|dir| walk(&mut eagerness, dir, 100, |plain| plain)).collect();
        assert_eq!(told[..3], [0, 100, 100]);
        assert_eq!(
            told.iter().sum::<u32>(),
            1600 - 2 * SAMPLED,
            "now and then a few are not, to see if that is still so"
        );
    }

    #[test]
    fn who_only_lists_is_not() {
        let mut eagerness = Eagerness::default();
        assert!((1..100).all(|dir| walk(&mut eagerness, dir, 100, |_| dir as u32 % 50) == 0));
    }

    #[test]
    fn who_stops_looking_is_found_out() {
        let mut eagerness = Eagerness::default();
        for dir in 1..10 {
            walk(&mut eagerness, dir, 100, |plain| plain);
        }
        let told = (10..100).filter(|dir| walk(&mut eagerness, *dir, 100, |_| 0) > 0).count();
        assert!(told <= SAMPLE as usize, "{told}");
    }

    #[test]
    fn small_directories_show_little_each() {
        let mut eagerness = Eagerness::default();
        let told: Vec<u32> = (1..=40).map(|dir| walk(&mut eagerness, dir, 3, |plain| plain)).collect();
        assert!(told[..21].iter().all(|told| *told == 0) && told[22..].contains(&3), "{told:?}");
    }

    #[test]
    fn a_large_directory_is_told_once_its_first_files_were_looked_at() {
        let mut eagerness = Eagerness::default();
        assert_eq!(walk(&mut eagerness, 5, 200, |_| 198), 0);
        eagerness.listing(5, false);
        assert!(eagerness.tells());
        eagerness.listing(6, false);
        assert!(!eagerness.tells(), "another one");
    }
}
