//! The shape of the machine, as far as this process may use it.
//!
//! Comes in: a root directory under which `sys/` and `proc/` lie, so that a directory of a few
//! files can stand for any machine. Goes out: a [`Topology`]. What is missing is left out, never
//! guessed: a machine without `/sys` has CPUs and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::cgroup::{self, Quota};
use crate::config::parse_list;

const CPUS: &str = "sys/devices/system/cpu";
const NODES: &str = "sys/devices/system/node";

/// Cache descriptions that are looked at per CPU; machines have four or five.
const CACHES_MAX: usize = 16;

/// The CPUs of a machine and what this process may do with them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    /// The CPUs that are online, ascending.
    pub cpus: Vec<Cpu>,
    /// The CPUs in the affinity mask of this thread, which the shards inherit.
    pub affinity: BTreeSet<usize>,
    /// The CPUs of the cgroup's cpuset, if it has one.
    pub cpuset: Option<BTreeSet<usize>>,
    /// How much CPU time the cgroup allows, if it limits it.
    pub quota: Option<Quota>,
    /// The NUMA nodes that are online, with or without CPUs; empty if the kernel knows none.
    pub nodes: BTreeSet<usize>,
}

/// A CPU: what the kernel schedules on, one thread of a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpu {
    /// Its number.
    pub id: usize,
    /// The lowest number of a CPU of the same core (SMT siblings).
    pub core: usize,
    /// The lowest number of a CPU with the same third-level cache, if it has one.
    pub l3: Option<usize>,
    /// Its NUMA node, if it is known.
    pub node: Option<u32>,
    /// The nearest NUMA node that has memory which this process may use; mostly its own.
    pub memory_node: Option<u32>,
}

impl Topology {
    /// This machine.
    #[must_use]
    pub fn detect() -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        Self::read(Path::new("/"), cpus)
    }

    /// The machine that is described under `root`. Where nothing tells which CPUs there are, there
    /// are `fallback_cpus`.
    #[must_use]
    pub fn read(root: &Path, fallback_cpus: usize) -> Self {
        let files = Files { root: root.to_owned() };
        let status = files.text("proc/thread-self/status").unwrap_or_default();
        let affinity = status_list(&status, "Cpus_allowed_list");
        let online = files
            .list(format!("{CPUS}/online"))
            .or_else(|| affinity.clone())
            .unwrap_or_else(|| (0..fallback_cpus).collect());
        let nodes = Nodes::read(&files, status_list(&status, "Mems_allowed_list"));
        let (cpuset, quota) = cgroup::limits(&files);
        Self {
            cpus: online.iter().map(|id| nodes.locate(files.cpu(*id))).collect(),
            affinity: affinity.unwrap_or(online),
            cpuset,
            quota,
            nodes: nodes.online,
        }
    }

    /// The CPUs that are online and that both affinity mask and cpuset let this process use.
    #[must_use]
    pub fn usable(&self) -> Vec<Cpu> {
        let in_cpuset = |id| self.cpuset.as_ref().is_none_or(|cpuset| cpuset.contains(&id));
        let usable = |cpu: &&Cpu| self.affinity.contains(&cpu.id) && in_cpuset(cpu.id);
        self.cpus.iter().filter(usable).copied().collect()
    }
}

/// The files under a root.
pub(super) struct Files {
    root: PathBuf,
}

impl Files {
    /// The text of a file, trimmed; `None` if it cannot be read.
    pub(super) fn text(&self, path: impl AsRef<Path>) -> Option<String> {
        let text = fs::read_to_string(self.root.join(path)).ok()?;
        Some(text.trim().to_owned())
    }

    pub(super) fn number<N: FromStr>(&self, path: impl AsRef<Path>) -> Option<N> {
        self.text(path)?.parse().ok()
    }

    pub(super) fn list(&self, path: impl AsRef<Path>) -> Option<BTreeSet<usize>> {
        parse_list(&self.text(path)?)
    }

    /// A CPU without its node.
    fn cpu(&self, id: usize) -> Cpu {
        let cpu = format!("{CPUS}/cpu{id}");
        let siblings = self.list(format!("{cpu}/topology/thread_siblings_list"));
        let level = |index: &usize| self.number::<u32>(format!("{cpu}/cache/index{index}/level"));
        let l3 = (0..CACHES_MAX)
            .take_while(|index| level(index).is_some())
            .find(|index| level(index) == Some(3))
            .and_then(|index| self.list(format!("{cpu}/cache/index{index}/shared_cpu_list")))
            .and_then(|sharing| sharing.first().copied());
        let core = siblings.and_then(|siblings| siblings.first().copied()).unwrap_or(id);
        Cpu { id, core, l3, node: None, memory_node: None }
    }
}

/// The NUMA nodes, as the CPUs see them.
struct Nodes {
    online: BTreeSet<usize>,
    /// The node of each CPU that has one.
    of_cpu: BTreeMap<usize, u32>,
    /// The node whose memory each node should use.
    memory: BTreeMap<u32, u32>,
}

impl Nodes {
    fn read(files: &Files, allowed: Option<BTreeSet<usize>>) -> Self {
        let online = files.list(format!("{NODES}/online")).unwrap_or_default();
        let has_memory =
            files.list(format!("{NODES}/has_memory")).unwrap_or_else(|| online.clone());
        let usable = |node: &usize| {
            has_memory.contains(node)
                && allowed.as_ref().is_none_or(|allowed| allowed.contains(node))
        };
        let mut of_cpu = BTreeMap::new();
        let mut memory = BTreeMap::new();
        for node in &online {
            let number = *node as u32;
            let cpus = files.list(format!("{NODES}/node{node}/cpulist")).unwrap_or_default();
            of_cpu.extend(cpus.into_iter().map(|cpu| (cpu, number)));
            let distances = files.text(format!("{NODES}/node{node}/distance")).unwrap_or_default();
            let distances = distances.split_whitespace().map(|text| text.parse().ok());
            // One distance per node that is online, in their order; an unknown one is the farthest.
            let distances = distances.chain(std::iter::repeat(None));
            let nearest = online
                .iter()
                .zip(distances)
                .filter(|(other, _)| usable(other))
                .min_by_key(|(other, distance)| (*other != node, distance.unwrap_or(u32::MAX)));
            memory.extend(nearest.map(|(other, _)| (number, *other as u32)));
        }
        Self { online, of_cpu, memory }
    }

    fn locate(&self, cpu: Cpu) -> Cpu {
        let node = self.of_cpu.get(&cpu.id).copied();
        let memory_node = node.and_then(|node| self.memory.get(&node).copied());
        Cpu { node, memory_node, ..cpu }
    }
}

/// The list of a line of `/proc/self/status`.
fn status_list(status: &str, name: &str) -> Option<BTreeSet<usize>> {
    let value = |line: &str| Some(line.strip_prefix(name)?.strip_prefix(':')?.to_owned());
    parse_list(&status.lines().find_map(value)?)
}
