//! Which CPUs get a shard.

use std::collections::BTreeSet;

use super::topology::{Cpu, Topology};
use crate::config::{Config, ConfigError, CpuList, ShardCount};

/// Where a shard runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardPlace {
    /// The number of the shard, from 0.
    pub shard: u16,
    /// Its CPU.
    pub cpu: usize,
    /// The NUMA node of that CPU, if it is known.
    pub node: Option<u32>,
}

/// One shard per chosen CPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    shards: Vec<ShardPlace>,
    /// How the CPUs were found, for the report.
    why: String,
}

impl Placement {
    /// Chooses the CPUs.
    ///
    /// `auto` means those that this process may use (affinity mask, cpuset), at most as many as
    /// its quota is worth. Where fewer shards than CPUs are wanted, one node is filled before the
    /// next (sessions that talk to each other stay near), and every core gets one shard before any
    /// gets a second on its other hardware thread.
    ///
    /// # Errors
    /// A CPU or a node is named that this process may not use, or there are fewer CPUs than
    /// shards.
    pub fn plan(config: &Config, topology: &Topology) -> Result<Self, ConfigError> {
        let server = &config.server;
        let mut cpus = match &server.cpus {
            CpuList::Auto => topology.cpus.clone(),
            CpuList::Exactly(wanted) => chosen(topology, wanted)?,
        };
        if server.numa_node >= 0 {
            let node = u32::try_from(server.numa_node).ok();
            cpus.retain(|cpu| cpu.node == node);
            if cpus.is_empty() {
                return Err(ConfigError::Placement(format!(
                    "server.numa_node is {}, but this process may use no CPU of that node: it may \
                     use {}",
                    server.numa_node,
                    names(&topology.cpus)
                )));
            }
        }
        let auto = server.cpus == CpuList::Auto;
        let quota = topology.quota.filter(|quota| auto && *quota < cpus.len());
        let count = match server.shards {
            ShardCount::Auto => quota.unwrap_or(cpus.len()),
            ShardCount::Exactly(count) => usize::from(count),
        };
        if count > cpus.len() || count == 0 {
            return Err(ConfigError::Placement(format!(
                "server.shards is {count}, but there are {} CPUs to place them on ({}): ask for \
                 fewer shards, or name more CPUs in server.cpus",
                cpus.len(),
                names(&cpus)
            )));
        }
        sort(&mut cpus);
        cpus.truncate(count);
        let shards = (0..).zip(cpus).map(|(shard, Cpu { id, node, .. })| ShardPlace {
            shard,
            cpu: id,
            node,
        });
        let why = match (&server.cpus, quota) {
            (CpuList::Auto, Some(quota)) => format!("{quota} CPUs by the quota of the cgroup"),
            (CpuList::Auto, None) => "the CPUs that this process may use".to_owned(),
            (CpuList::Exactly(_), _) => "server.cpus".to_owned(),
        };
        Ok(Self { shards: shards.collect(), why })
    }

    /// The shards, by their numbers.
    #[must_use]
    pub fn shards(&self) -> &[ShardPlace] {
        &self.shards
    }

    /// How the CPUs were found.
    #[must_use]
    pub fn why(&self) -> &str {
        &self.why
    }
}

fn chosen(topology: &Topology, wanted: &BTreeSet<usize>) -> Result<Vec<Cpu>, ConfigError> {
    let find = |id: &usize| topology.cpus.iter().find(|cpu| cpu.id == *id).cloned().ok_or(*id);
    wanted.iter().map(find).collect::<Result<_, _>>().map_err(|missing| {
        ConfigError::Placement(format!(
            "server.cpus names CPU {missing}, which this process may not use: it may use {}",
            names(&topology.cpus)
        ))
    })
}

/// Node by node; in a node the first threads of all cores, then the second ones.
fn sort(cpus: &mut [Cpu]) {
    let threads_before = |cpu: &Cpu, all: &[Cpu]| {
        all.iter().filter(|other| other.core == cpu.core && other.id < cpu.id).count()
    };
    let all = cpus.to_vec();
    cpus.sort_by_key(|cpu| (cpu.node, threads_before(cpu, &all), cpu.id));
}

fn names(cpus: &[Cpu]) -> String {
    let ids: Vec<_> = cpus.iter().map(|cpu| cpu.id.to_string()).collect();
    if ids.is_empty() { "none".to_owned() } else { ids.join(",") }
}
