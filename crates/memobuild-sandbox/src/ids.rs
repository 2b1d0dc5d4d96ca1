//! Which ids a step's namespace has, and how they are mapped to the machine's.

use std::{io, process::Command};

use crate::{error::SandboxError, fuse::OwnerView, mode::OwnershipClass};

/// `inside`, `outside`, `count`, as in /proc/PID/uid_map.
pub(crate) type Range = (u32, u32, u32);

/// How ids are mapped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum IdMap {
    /// No user namespace: this is root.
    Host,
    /// The user alone, as root.
    Single,
    /// User and group ranges.
    Ranges(Box<(Vec<Range>, Vec<Range>)>),
}

/// The ids of a server's namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ids {
    pub(crate) map: IdMap,
}

/// What owners will mean in the mode that [`crate::Sandbox`] chooses by itself, told without starting anything: so that
/// keys can be made where no step has to run. The mode in use has the last word ([`crate::Mode::ownership`]).
pub fn expected_ownership() -> OwnershipClass {
    let on_path = |tool: &str| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|dir| dir.join(tool).is_file())
    };
    let root = rustix::process::geteuid().is_root();
    match root || (Ids::ranges().is_ok() && on_path("newuidmap") && on_path("newgidmap")) {
        true => OwnershipClass::True,
        false => OwnershipClass::Single,
    }
}

impl Ids {
    /// Those of the machine.
    pub(crate) const HOST: Self = Self { map: IdMap::Host };
    /// One.
    pub(crate) const SINGLE: Self = Self { map: IdMap::Single };

    /// Ranges for this user: from /etc/subuid and /etc/subgid; for root all of its own, as it sees them (in a container
    /// without further rights, or where a user namespace is needed). An error says in one line why there are none.
    pub(crate) fn ranges() -> Result<Self, String> {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let ranges = if uid == 0 {
            (own_ids("/proc/self/uid_map"), own_ids("/proc/self/gid_map"))
        } else {
            let name = user_name(uid);
            let of = |file: &str, own: u32| -> Result<Vec<Range>, String> {
                let text = std::fs::read_to_string(file).map_err(|e| format!("{file}: {e}"))?;
                let ranges = subordinate_ranges(&text, uid, name.as_deref());
                if ranges.is_empty() {
                    return Err(format!("{file} has no range for this user"));
                }
                let mut map = vec![(0, own, 1)];
                let mut next = 1u32;
                for (start, count) in ranges {
                    map.push((next, start, count));
                    next = next.saturating_add(count);
                }
                Ok(map)
            };
            (of("/etc/subuid", uid)?, of("/etc/subgid", gid)?)
        };
        Ok(Self { map: IdMap::Ranges(Box::new(ranges)) })
    }

    /// Whether files can have any owner.
    pub(crate) fn class(&self) -> OwnershipClass {
        if self.single() { OwnershipClass::Single } else { OwnershipClass::True }
    }

    /// A few words for messages.
    pub(crate) fn name(&self) -> &'static str {
        match &self.map {
            IdMap::Host => "root's own ids",
            IdMap::Single => "one mapped id",
            IdMap::Ranges(_) => "subordinate ids",
        }
    }

    pub(crate) fn single(&self) -> bool {
        self.map == IdMap::Single
    }

    /// Ids from here on are not mapped.
    pub(crate) fn limit(&self) -> u32 {
        match &self.map {
            IdMap::Host => u32::MAX,
            IdMap::Single => 1,
            IdMap::Ranges(ranges) => {
                let end = |map: &[Range]| map.last().map_or(0, |(inside, _, count)| inside.saturating_add(*count));
                end(&ranges.0).min(end(&ranges.1))
            }
        }
    }

    /// How owners show.
    pub(crate) fn view(&self) -> OwnerView {
        if self.single() { OwnerView::Root } else { OwnerView::Below(self.limit()) }
    }

    /// Writes the maps of the process that made the namespace: as root directly, else by the set-uid helpers.
    pub(crate) fn write_maps(&self, pid: u32) -> Result<(), SandboxError> {
        let IdMap::Ranges(ranges) = &self.map else { return Ok(()) };
        for (file, tool, map) in [("uid_map", "newuidmap", &ranges.0), ("gid_map", "newgidmap", &ranges.1)] {
            if rustix::process::geteuid().is_root() {
                let text: String = map.iter().map(|(a, b, n)| format!("{a} {b} {n}\n")).collect();
                std::fs::write(format!("/proc/{pid}/{file}"), text)
                    .map_err(|e| SandboxError::setup(format!("writing /proc/{pid}/{file}"), e))?;
                continue;
            }
            let numbers = map.iter().flat_map(|(a, b, n)| [*a, *b, *n]).map(|n| n.to_string());
            let output = Command::new(tool)
                .arg(pid.to_string())
                .args(numbers)
                .output()
                .map_err(|e| SandboxError::setup(format!("running {tool}"), e))?;
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                return Err(SandboxError::setup(format!("running {tool}"), io::Error::other(said)));
            }
        }
        Ok(())
    }
}

/// All ids of this process's namespace, each mapped to itself.
fn own_ids(file: &str) -> Vec<Range> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let ranges = same_ids(&text);
    if ranges.is_empty() { vec![(0, 0, u32::MAX)] } else { ranges }
}

/// First id and count of each line of a map (user_namespaces(7)), in order.
fn same_ids(text: &str) -> Vec<Range> {
    let parse = |line: &str| {
        let mut fields = line.split_whitespace();
        let inside = fields.next()?.parse().ok()?;
        Some((inside, inside, fields.nth(1)?.parse().ok()?))
    };
    let mut ranges: Vec<Range> = text.lines().filter_map(parse).collect();
    ranges.sort_unstable();
    ranges
}

/// The name of a user id by /etc/passwd.
fn user_name(uid: u32) -> Option<String> {
    let text = std::fs::read_to_string("/etc/passwd").ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

/// Start and count of each range of a user, by name or number (subuid(5)).
fn subordinate_ranges(text: &str, uid: u32, name: Option<&str>) -> Vec<(u32, u32)> {
    let ours = |owner: &str| Some(owner) == name || owner.parse() == Ok(uid);
    let parse = |line: &str| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        let range = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        ours(owner).then_some(range)
    };
    text.lines().filter_map(parse).filter(|(_, count)| *count > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_found_by_name_and_number() {
        let text = "# x\nann:100000:65536\nbob:5:6\n1000:300000:10\nann:bad:1\n";
        assert_eq!(subordinate_ranges(text, 1000, Some("ann")), [(100_000, 65536), (300_000, 10)]);
        assert_eq!(subordinate_ranges(text, 7, None), []);
    }

    #[test]
    fn own_ids_are_mapped_to_themselves() {
        assert_eq!(same_ids("         0          0 4294967295\n"), [(0, 0, u32::MAX)]);
        assert_eq!(same_ids("1 100000 65536\n0 1000 1\n"), [(0, 0, 1), (1, 1, 65536)]);
    }

    #[test]
    fn limits_say_where_mapping_ends() {
        let ranges = |count| vec![(0, 1000, 1), (1, 100_000, count)];
        let ids = Ids { map: IdMap::Ranges(Box::new((ranges(65536), ranges(1000)))) };
        assert_eq!(ids.limit(), 1001);
        assert_eq!(Ids::HOST.limit(), u32::MAX);
        assert_eq!(Ids::SINGLE.view(), OwnerView::Root);
    }
}
