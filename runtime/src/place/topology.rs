//! What the machine is made of, and what of it this process may use.
//!
//! Read from `/sys`, `/proc` and the cgroup file system under a root that tests replace by trees of
//! other machines. What cannot be read is not there: the worst outcome is one node of CPUs that
//! have no siblings.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::config::parse_list;

/// One CPU that this process may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cpu {
    /// Its number.
    pub id: usize,
    /// Its NUMA node, if the machine tells.
    pub node: Option<u32>,
    /// The lowest number of the hardware threads of its core: the same for siblings.
    pub core: usize,
    /// The lowest number of the CPUs that share its last-level cache.
    pub cache: usize,
}

/// The CPUs that this process may use, and how much of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// Online, in the affinity mask and in the cpuset, by their numbers.
    pub cpus: Vec<Cpu>,
    /// CPUs' worth of time that the CFS quota grants, rounded up; `None`: no quota.
    pub quota: Option<usize>,
    /// NUMA nodes that memory may come from; empty if the machine does not tell.
    pub memory_nodes: BTreeSet<u32>,
}

impl Topology {
    /// This machine.
    #[must_use]
    pub fn detect() -> Self {
        Self::read(Path::new("/"))
    }

    /// The machine whose `/sys` and `/proc` lie under `root`.
    #[must_use]
    pub fn read(root: &Path) -> Self {
        let tree = Tree { root: root.to_owned() };
        let status = tree.text("proc/self/status").unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            parse_list(line.trim_start_matches(':')).ok()
        };
        let groups = tree.cgroups();
        let mut allowed = tree.list("sys/devices/system/cpu/online").unwrap_or_else(fallback_cpus);
        let masks = [field("Cpus_allowed_list"), tree.nearest_cpuset(&groups)];
        for mask in masks.into_iter().flatten() {
            allowed.retain(|cpu| mask.contains(cpu));
        }
        let nodes = tree.nodes();
        let cpus = allowed.into_iter().map(|id| tree.cpu(id, &nodes)).collect();
        let memory_nodes = field("Mems_allowed_list").unwrap_or_default();
        let memory_nodes = memory_nodes.into_iter().filter_map(|node| u32::try_from(node).ok());
        Self { cpus, quota: tree.smallest_quota(&groups), memory_nodes: memory_nodes.collect() }
    }
}

fn fallback_cpus() -> BTreeSet<usize> {
    let count = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (0..count).collect()
}

struct Tree {
    root: PathBuf,
}

impl Tree {
    fn text(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.root.join(path)).ok()
    }

    fn list(&self, path: &str) -> Option<BTreeSet<usize>> {
        parse_list(&self.text(path)?).ok()
    }

    /// The nodes with the CPUs of each.
    fn nodes(&self) -> Vec<(u32, BTreeSet<usize>)> {
        let online = self.list("sys/devices/system/node/online").unwrap_or_default();
        let cpus = |node: usize| {
            let path = format!("sys/devices/system/node/node{node}/cpulist");
            Some((u32::try_from(node).ok()?, self.list(&path)?))
        };
        online.into_iter().filter_map(cpus).collect()
    }

    fn cpu(&self, id: usize, nodes: &[(u32, BTreeSet<usize>)]) -> Cpu {
        let base = format!("sys/devices/system/cpu/cpu{id}");
        let lowest = |path: String| self.list(&path).and_then(|list| list.first().copied());
        let core = lowest(format!("{base}/topology/thread_siblings_list")).unwrap_or(id);
        let caches = (0..=4).rev();
        let cache = caches
            .filter_map(|index| lowest(format!("{base}/cache/index{index}/shared_cpu_list")))
            .next();
        let node = nodes.iter().find(|(_, cpus)| cpus.contains(&id)).map(|(node, _)| *node);
        Cpu { id, node, core, cache: cache.unwrap_or(core) }
    }

    /// The directories of this process' cgroup and of those above it, innermost first: of the
    /// second version, or of both hierarchies of the first that concern CPUs.
    fn cgroups(&self) -> Vec<String> {
        let mut directories = Vec::new();
        for line in self.text("proc/self/cgroup").unwrap_or_default().lines() {
            let mut parts = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
            let mounts: &[&str] = match controllers {
                "" => &["sys/fs/cgroup"],
                _ if controllers.split(',').any(|name| name == "cpu") => {
                    &["sys/fs/cgroup/cpu", "sys/fs/cgroup/cpu,cpuacct"]
                }
                _ if controllers.split(',').any(|name| name == "cpuset") => {
                    &["sys/fs/cgroup/cpuset"]
                }
                _ => &[],
            };
            for mount in mounts {
                let mut path = path.trim_matches('/');
                loop {
                    let slash = if path.is_empty() { "" } else { "/" };
                    directories.push(format!("{mount}{slash}{path}"));
                    let Some((parent, _)) = path.rsplit_once('/') else { break };
                    path = parent;
                }
                // In a container the path may be the host's, and the mount its own group.
                directories.push((*mount).to_owned());
            }
        }
        directories
    }

    fn nearest_cpuset(&self, groups: &[String]) -> Option<BTreeSet<usize>> {
        let names = ["cpuset.cpus.effective", "cpuset.effective_cpus", "cpuset.cpus"];
        let files = groups.iter().flat_map(|group| names.map(|name| format!("{group}/{name}")));
        files.filter_map(|file| self.list(&file)).find(|cpus| !cpus.is_empty())
    }

    /// A quota of any group above counts: the smallest is the one that is felt.
    fn smallest_quota(&self, groups: &[String]) -> Option<usize> {
        let cpus = |quota: &str, period: &str| {
            let (quota, period) = (quota.parse::<u64>().ok()?, period.parse::<u64>().ok()?);
            let cpus = usize::try_from(quota.div_ceil(period.max(1))).ok()?;
            Some(cpus.max(1))
        };
        let of_group = |group: &String| {
            if let Some(text) = self.text(&format!("{group}/cpu.max")) {
                let (quota, period) = text.trim().split_once(' ')?;
                return cpus(quota, period);
            }
            let quota = self.text(&format!("{group}/cpu.cfs_quota_us"))?;
            let period = self.text(&format!("{group}/cpu.cfs_period_us"))?;
            cpus(quota.trim(), period.trim())
        };
        groups.iter().filter_map(of_group).min()
    }
}
