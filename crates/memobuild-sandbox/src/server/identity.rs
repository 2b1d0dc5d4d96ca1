//! The ids that a step's processes believe to have, where only one is mapped: what the calls that set and get them
//! answer, by the rules of credentials(7), as if effective user 0 had all capabilities and nobody else any.
//!
//! What a process was given is told by a mark that the kernel keeps for it and hands on by fork and exec as it does
//! with ids: the soft limit on file locks, which nothing has heeded since Linux 2.4. Processes without a mark have the
//! ids that the step was to run with.

use std::{collections::HashMap, io, rc::Rc};

use crate::sys;

/// Upper half of the limit of processes that have a mark; the lower is the number of what they have.
const MARK: u64 = 0x6d62_6964 << 32;

/// "Leave it as it is."
const KEEP: u32 = u32::MAX;

/// Real, effective and saved id.
type Three = [u32; 3];

/// What one process believes to be.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    pub(super) uids: Three,
    pub(super) gids: Three,
    pub(super) groups: Rc<[u32]>,
    /// The program that it ran when this was settled: device and inode.
    program: Option<(u64, u64)>,
}

/// A program, as far as it changes who runs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Program {
    /// Device and inode.
    pub(super) id: (u64, u64),
    /// Whom a set-user-ID program makes its user.
    pub(super) user: Option<u32>,
    /// The same for the group.
    pub(super) group: Option<u32>,
}

/// A refusal.
pub(super) const REFUSED: i32 = libc::EPERM;

impl Identity {
    pub(super) fn new((uid, gid, groups): &(u32, u32, Vec<u32>)) -> Self {
        Self { uids: [*uid; 3], gids: [*gid; 3], groups: groups.as_slice().into(), program: None }
    }

    /// Whether it may do as it likes.
    pub(super) fn is_root(&self) -> bool {
        self.uids[1] == 0
    }

    /// Whether no program could change what it is.
    fn is_settled(&self) -> bool {
        self.uids == [0; 3] && self.gids == [0; 3]
    }

    /// What it is in this program, if it was settled in another.
    fn execute(&self, program: Program) -> Option<Self> {
        if self.program == Some(program.id) {
            return None;
        }
        let mut new = self.clone();
        new.uids[1] = program.user.unwrap_or(new.uids[1]);
        new.gids[1] = program.group.unwrap_or(new.gids[1]);
        // Exec saves the effective ids.
        (new.uids[2], new.gids[2]) = (new.uids[1], new.gids[1]);
        new.program = Some(program.id);
        Some(new)
    }

    /// Whether a file's owner may become this: one's own, groups one is in.
    pub(super) fn may_give(&self, uid: u32, gid: u32) -> bool {
        let own_group = |gid| self.gids.contains(&gid) || self.groups.contains(&gid);
        self.is_root() || ((uid == KEEP || uid == self.uids[1]) && (gid == KEEP || own_group(gid)))
    }

    pub(super) fn set_groups(&mut self, groups: Vec<u32>) -> Result<(), i32> {
        if !self.is_root() {
            return Err(REFUSED);
        }
        self.groups = groups.into();
        Ok(())
    }
}

/// setuid, setgid.
pub(super) fn set(ids: &mut Three, root: bool, id: u32) -> Result<(), i32> {
    match id {
        KEEP => Err(libc::EINVAL),
        _ if root => {
            *ids = [id; 3];
            Ok(())
        }
        _ if id == ids[0] || id == ids[2] => {
            ids[1] = id;
            Ok(())
        }
        _ => Err(REFUSED),
    }
}

/// setreuid, setregid.
pub(super) fn set_two(ids: &mut Three, root: bool, real: u32, effective: u32) -> Result<(), i32> {
    let [old_real, old_effective, _] = *ids;
    let real_may = real == KEEP || real == old_real || real == old_effective;
    if !root && !(real_may && (effective == KEEP || ids.contains(&effective))) {
        return Err(REFUSED);
    }
    if real != KEEP {
        ids[0] = real;
    }
    if effective != KEEP {
        ids[1] = effective;
    }
    if real != KEEP || (effective != KEEP && effective != old_real) {
        ids[2] = ids[1];
    }
    Ok(())
}

/// setresuid, setresgid.
pub(super) fn set_three(ids: &mut Three, root: bool, wanted: Three) -> Result<(), i32> {
    if !root && !wanted.iter().all(|id| *id == KEEP || ids.contains(id)) {
        return Err(REFUSED);
    }
    for (id, wanted) in ids.iter_mut().zip(wanted) {
        if wanted != KEEP {
            *id = wanted;
        }
    }
    Ok(())
}

/// All identities of a step that there have been.
#[derive(Debug)]
pub(super) struct Identities {
    known: Vec<Identity>,
    numbers: HashMap<Identity, u32>,
}

impl Identities {
    /// The first is that of all processes that have not changed theirs.
    pub(super) fn new(first: Identity) -> Self {
        Self { numbers: HashMap::from([(first.clone(), 0)]), known: vec![first] }
    }

    /// What a process is. `program` tells what it runs, where that can matter.
    pub(super) fn of(&mut self, pid: u32, program: impl FnOnce() -> Option<Program>) -> io::Result<Identity> {
        let soft = sys::soft_limit_of(pid, libc::RLIMIT_LOCKS)?;
        let number = if soft & !u64::from(u32::MAX) == MARK { soft as u32 } else { 0 };
        let identity = self.known.get(number as usize).or(self.known.first()).cloned();
        let identity = identity.ok_or(io::ErrorKind::NotFound)?;
        if identity.is_settled() {
            return Ok(identity);
        }
        match program().and_then(|program| identity.execute(program)) {
            Some(changed) => {
                self.change(pid, changed.clone())?;
                Ok(changed)
            }
            None => Ok(identity),
        }
    }

    /// Makes a process something else.
    pub(super) fn change(&mut self, pid: u32, identity: Identity) -> io::Result<()> {
        let number = match self.numbers.get(&identity) {
            Some(number) => *number,
            None => {
                let number = u32::try_from(self.known.len()).map_err(|_| io::ErrorKind::OutOfMemory)?;
                self.numbers.insert(identity.clone(), number);
                self.known.push(identity);
                number
            }
        };
        sys::set_soft_limit_of(pid, libc::RLIMIT_LOCKS, MARK | u64::from(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> Identity {
        Identity::new(&(0, 0, vec![0]))
    }

    #[test]
    fn a_drop_of_rights_is_final() {
        // What apt does, and then tries.
        let mut who = root();
        who.set_groups(vec![65534]).unwrap();
        let root = who.is_root();
        set_three(&mut who.gids, root, [65534; 3]).unwrap();
        set_three(&mut who.uids, root, [42; 3]).unwrap();
        let root = who.is_root();
        assert!(!root);
        assert_eq!(set(&mut who.uids, root, 0), Err(REFUSED));
        assert_eq!(set_three(&mut who.gids, root, [KEEP, 0, KEEP]), Err(REFUSED));
        assert_eq!(who.set_groups(vec![]), Err(REFUSED));
        assert_eq!((who.uids, who.gids, &*who.groups), ([42; 3], [65534; 3], [65534].as_slice()));
        assert!(who.may_give(KEEP, 65534) && who.may_give(42, KEEP) && !who.may_give(0, KEEP) && !who.may_give(42, 0));
    }

    #[test]
    fn a_saved_id_leads_back() {
        let mut ids = [0; 3];
        set_two(&mut ids, true, KEEP, 7).unwrap();
        assert_eq!(ids, [0, 7, 7]);
        let mut ids = [0; 3];
        set_three(&mut ids, true, [KEEP, 7, KEEP]).unwrap();
        assert_eq!(ids, [0, 7, 0]);
        set(&mut ids, false, 0).unwrap();
        assert_eq!(ids, [0; 3]);
        // Swapping real and effective, as old programs do.
        let mut ids = [1, 2, 2];
        set_two(&mut ids, false, 2, 1).unwrap();
        assert_eq!(ids, [2, 1, 1]);
        assert_eq!(set_two(&mut [1, 2, 3], false, 3, KEEP), Err(REFUSED));
        assert_eq!(set(&mut [1, 2, 3], false, KEEP), Err(libc::EINVAL));
    }

    #[test]
    fn set_id_programs_count_once() {
        let who = Identity::new(&(7, 7, vec![]));
        let sudo = Program { id: (1, 1), user: Some(0), group: None };
        let risen = who.execute(sudo).unwrap();
        assert_eq!((risen.uids, risen.gids), ([7, 0, 0], [7; 3]));
        assert_eq!(risen.execute(sudo), None);
        let next = risen.execute(Program { id: (1, 2), user: None, group: None }).unwrap();
        assert_eq!(next.uids, [7, 0, 0]);
    }
}
