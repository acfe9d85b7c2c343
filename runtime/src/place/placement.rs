//! From what is asked for and what is there to one CPU per shard.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::topology::{Cpu, Topology};
use crate::config::{Config, ConfigError, CpuList, ShardCount, format_list};

/// Where a shard runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardPlace {
    /// The number of the shard, from 0.
    pub shard: u16,
    /// Its CPU.
    pub cpu: usize,
    /// The NUMA node that its memory comes from, if it is known: that of its CPU, or the nearest
    /// one with memory.
    pub node: Option<u32>,
}

/// The shards of a server, each with its CPU.
///
/// Every CPU that may be used gets a shard. Where there are to be fewer shards than CPUs, a core
/// of its own comes first, before the second thread of any core, as two threads of a core share
/// what a busy shard needs whole; then one NUMA node is filled before the next (that with the most
/// cores first), and in it one third-level cache before the next, as letters between shards and the
/// memory they share are cheapest there. Shards are numbered along nodes and CPUs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    shards: Vec<ShardPlace>,
    notes: Vec<String>,
}

impl Placement {
    /// Chooses the CPUs.
    ///
    /// # Errors
    /// CPUs or a node are asked for that are not there or that this process may not use, or more
    /// shards than CPUs.
    pub fn plan(config: &Config, topology: &Topology) -> Result<Self, ConfigError> {
        let candidates = candidates(config, topology)?;
        let (count, notes) = count(config, topology, &candidates)?;
        let shards = (0..)
            .zip(choose(&candidates, count))
            .map(|(shard, cpu)| ShardPlace { shard, cpu: cpu.id, node: cpu.memory_node })
            .collect();
        Ok(Self { shards, notes })
    }

    /// The shards, by their number.
    #[must_use]
    pub fn shards(&self) -> &[ShardPlace] {
        &self.shards
    }

    /// What the operator should know of how they were chosen, in a sentence each.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }
}

/// The CPUs that may get a shard, ascending.
fn candidates(config: &Config, topology: &Topology) -> Result<Vec<Cpu>, ConfigError> {
    let usable = topology.usable();
    let wanted = match &config.server.cpus {
        CpuList::Auto => usable,
        CpuList::Exactly(list) => named(list, topology, &usable)?,
    };
    let Ok(node) = u32::try_from(config.server.numa_node) else {
        return if wanted.is_empty() { Err(no_cpu(topology)) } else { Ok(wanted) };
    };
    if !topology.nodes.contains(&(node as usize)) {
        let nodes = match format_list(&topology.nodes) {
            none if none.is_empty() => "no NUMA nodes".to_owned(),
            nodes => format!("only {nodes}"),
        };
        return wrong(format!(
            "`server.numa_node` is {node}, but this machine has {nodes}: name one of them, or -1"
        ));
    }
    let (here, elsewhere): (Vec<Cpu>, Vec<Cpu>) =
        wanted.into_iter().partition(|cpu| cpu.node == Some(node));
    if here.is_empty() {
        return wrong(format!(
            "`server.numa_node` is {node}, but that node has no CPU that this server may use: name \
             another, or -1"
        ));
    }
    if !elsewhere.is_empty() && config.server.cpus != CpuList::Auto {
        return wrong(format!(
            "`server.cpus` names {}, not of `server.numa_node` {node}: remove them, or set it to \
             -1",
            format_list(&ids(&elsewhere))
        ));
    }
    Ok(here)
}

/// The CPUs of an explicit list, if all of them are to be had.
fn named(
    list: &BTreeSet<usize>,
    topology: &Topology,
    usable: &[Cpu],
) -> Result<Vec<Cpu>, ConfigError> {
    let usable_ids = ids(usable);
    let refused: BTreeSet<usize> = list.difference(&usable_ids).copied().collect();
    if refused.is_empty() {
        return Ok(usable.iter().filter(|cpu| list.contains(&cpu.id)).copied().collect());
    }
    let online = ids(&topology.cpus);
    let absent: BTreeSet<usize> = refused.difference(&online).copied().collect();
    let masked: BTreeSet<usize> = refused.difference(&topology.affinity).copied().collect();
    let (cpus, why) = if !absent.is_empty() {
        (absent, "not online on this machine")
    } else if !masked.is_empty() {
        (masked, "outside the affinity mask of this process (taskset)")
    } else {
        (refused, "outside the cpuset of its control group (container)")
    };
    wrong(format!(
        "`server.cpus` names {}, {why}: name some of {}, or \"auto\"",
        format_list(&cpus),
        format_list(&usable_ids)
    ))
}

/// How many shards, and what is to be said of that.
fn count(
    config: &Config,
    topology: &Topology,
    candidates: &[Cpu],
) -> Result<(usize, Vec<String>), ConfigError> {
    let cpus = candidates.len();
    let allowed = topology.quota.map_or(cpus, |quota| quota.cpus().min(cpus));
    let is_auto = config.server.cpus == CpuList::Auto;
    let bound = if is_auto { allowed } else { cpus };
    let count = match config.server.shards {
        ShardCount::Auto => bound,
        ShardCount::Exactly(count) => usize::from(count),
    };
    let quota = match topology.quota {
        Some(quota) if allowed < cpus => format!(" (the CPU quota is {quota})"),
        _ => String::new(),
    };
    if count > bound {
        let advice = if bound < cpus { ", or name the CPUs in `server.cpus`" } else { "" };
        return wrong(format!(
            "`server.shards` is {count}, but there are CPUs for {bound}{quota}: lower it{advice}"
        ));
    }
    let mut notes = Vec::new();
    if count > allowed {
        notes.push(format!("{count} shards will be throttled{quota}"));
    } else if bound < cpus && count == bound {
        notes.push(format!("{bound} of {cpus} CPUs have a shard{quota}"));
    }
    Ok((count, notes))
}

/// The best `count` of them, in the order of the shards.
fn choose(candidates: &[Cpu], count: usize) -> Vec<Cpu> {
    let mut cores_of_node: BTreeMap<Option<u32>, BTreeSet<usize>> = BTreeMap::new();
    let mut threads_of_core: BTreeMap<usize, usize> = BTreeMap::new();
    let mut ranked = Vec::new();
    for cpu in candidates {
        cores_of_node.entry(cpu.node).or_default().insert(cpu.core);
        let thread = threads_of_core.entry(cpu.core).or_default();
        ranked.push((*thread, *cpu));
        *thread += 1;
    }
    ranked.sort_by_key(|(thread, cpu)| {
        let cores = cores_of_node[&cpu.node].len();
        (*thread, Reverse(cores), cpu.node, cpu.l3, cpu.id)
    });
    let mut chosen: Vec<Cpu> = ranked.into_iter().take(count).map(|(_, cpu)| cpu).collect();
    chosen.sort_by_key(|cpu| (cpu.node, cpu.id));
    chosen
}

fn ids(cpus: &[Cpu]) -> BTreeSet<usize> {
    cpus.iter().map(|cpu| cpu.id).collect()
}

fn no_cpu(topology: &Topology) -> ConfigError {
    let cpuset = topology.cpuset.as_ref().map_or_else(|| "none".to_owned(), format_list);
    ConfigError::Placement(format!(
        "there is no CPU for this process: its affinity mask is {}, its cpuset {cpuset}: \
         widen them",
        format_list(&topology.affinity)
    ))
}

fn wrong<T>(problem: String) -> Result<T, ConfigError> {
    Err(ConfigError::Placement(problem))
}
