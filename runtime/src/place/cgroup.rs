//! What the control group of this process allows: version 2, version 1, or both side by side.
//!
//! A group is found as the kernel documents it: `cgroup` names it relative to the root of its
//! hierarchy, and `mountinfo` tells which part of that hierarchy is mounted where (in a container
//! mostly the group itself).

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use super::topology::Files;

/// CPU time per period, as a control group limits it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Microseconds of CPU time in each period, all threads together.
    pub quota_us: u64,
    /// Length of a period in microseconds; never 0.
    pub period_us: u64,
}

impl Quota {
    /// CPUs that can be busy all the time, rounded up.
    #[must_use]
    pub fn cpus(self) -> usize {
        usize::try_from(self.quota_us.div_ceil(self.period_us)).unwrap_or(usize::MAX).max(1)
    }

    /// A quota of nothing or per nothing is none.
    fn new(quota_us: u64, period_us: u64) -> Option<Self> {
        (quota_us > 0 && period_us > 0).then_some(Self { quota_us, period_us })
    }

    fn cmp(&self, other: &Self) -> Ordering {
        let scaled =
            |quota: &Self, by: &Self| u128::from(quota.quota_us) * u128::from(by.period_us);
        scaled(self, other).cmp(&scaled(other, self))
    }
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.quota_us as f64 / self.period_us as f64)
    }
}

/// The cpuset and the smallest quota that bind this process.
pub(super) fn limits(files: &Files) -> (Option<BTreeSet<usize>>, Option<Quota>) {
    let groups = Groups::read(files);
    let cpuset = groups
        .chain("cpuset")
        .iter()
        .flat_map(|group| ["cpuset.cpus.effective", "cpuset.effective_cpus"].map(|f| group.join(f)))
        .find_map(|file| files.list(file).filter(|cpus| !cpus.is_empty()));
    let quotas = groups.chain("cpu").into_iter().filter_map(|group| quota(files, &group));
    (cpuset, quotas.min_by(Quota::cmp))
}

/// The quota of one group, in the files of version 2 or of version 1.
fn quota(files: &Files, group: &Path) -> Option<Quota> {
    if let Some(max) = files.text(group.join("cpu.max")) {
        let (quota, period) = max.split_once(' ')?;
        return Quota::new(quota.parse().ok()?, period.parse().ok()?);
    }
    // -1, no limit, is no u64.
    let quota = files.number(group.join("cpu.cfs_quota_us"))?;
    Quota::new(quota, files.number(group.join("cpu.cfs_period_us"))?)
}

/// The groups of this process, one per hierarchy.
struct Groups {
    /// Controllers of version 1 (empty: version 2), where the hierarchy is mounted, and the group.
    hierarchies: Vec<(Vec<String>, PathBuf, PathBuf)>,
}

impl Groups {
    fn read(files: &Files) -> Self {
        let mounts = files.text("proc/thread-self/mountinfo").unwrap_or_default();
        let groups = files.text("proc/thread-self/cgroup").unwrap_or_default();
        let hierarchy = |line: &str| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            let names = controllers.split(',').filter(|name| !name.is_empty());
            let names: Vec<String> = names.map(str::to_owned).collect();
            let mount = mounts.lines().filter_map(Mount::parse).find(|mount| mount.has(&names))?;
            let top = PathBuf::from(mount.point.trim_start_matches('/'));
            // A group outside of what is mounted is seen as the mount itself.
            // A namespace shows such a one with `..`.
            let below = Path::new(path).strip_prefix(mount.root).ok();
            let below = below.filter(|below| !below.starts_with(".."));
            let group = top.join(below.unwrap_or(Path::new("")));
            Some((names, top, group))
        };
        Self { hierarchies: groups.lines().filter_map(hierarchy).collect() }
    }

    /// The group that a controller has this process in, then its parents, as far as they are seen:
    /// first of version 1 where the controller is there, then of version 2.
    fn chain(&self, controller: &str) -> Vec<PathBuf> {
        let has = |names: &[String]| names.is_empty() || names.iter().any(|n| n == controller);
        let hierarchies = self.hierarchies.iter().filter(|(names, ..)| has(names));
        hierarchies
            .flat_map(|(_, top, group)| {
                group.ancestors().take_while(move |parent| parent.starts_with(top))
            })
            .map(Path::to_owned)
            .collect()
    }
}

/// A line of `mountinfo` (proc(5)).
struct Mount<'a> {
    root: &'a str,
    point: &'a str,
    kind: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (mount, filesystem) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(3);
        let mut filesystem = filesystem.split(' ');
        Some(Self {
            root: mount.next()?,
            point: mount.next()?,
            kind: filesystem.next()?,
            options: filesystem.nth(1)?,
        })
    }

    /// Whether it is of the hierarchy with these controllers (none: version 2).
    fn has(&self, controllers: &[String]) -> bool {
        let has = |name: &String| self.options.split(',').any(|option| option == name);
        match controllers {
            [] => self.kind == "cgroup2",
            names => self.kind == "cgroup" && names.iter().all(has),
        }
    }
}
