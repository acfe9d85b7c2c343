//! Placement on machines of many shapes, each a directory of the few files that are read of it.
//!
//! The directories are written by the tests themselves, from the description of a machine, as a
//! server with two nodes has some hundred such files. `fixtures/sys` keeps the files of a real one.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use hioload::Compression;
use hioload::config::{Config, CpuList, ReactorChoice};
use hioload::place::{MemoryBill, Placement, Quota, Topology};
use hioload_protocol::deflate::{Deflater, Inflater, Whole};
use rstest::rstest;
use tempfile::TempDir;

/// A machine, as files.
struct Machine(TempDir);

impl Machine {
    /// Nothing at all.
    fn empty() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    /// `nodes` nodes of `cores` cores, each with `threads` threads. CPUs are numbered as Linux does
    /// on most machines: the first threads of all cores, node by node, then the second ones.
    fn with(nodes: usize, cores: usize, threads: usize) -> Self {
        let machine = Self::empty();
        let all_cores = nodes * cores;
        for cpu in 0..all_cores * threads {
            let core = cpu % all_cores;
            let node = core / cores;
            let siblings = list((0..threads).map(|thread| core + thread * all_cores));
            machine.cpu(cpu, &siblings);
            let shared = (0..threads).flat_map(|thread| {
                let first = node * cores + thread * all_cores;
                first..first + cores
            });
            machine.l3(cpu, &list(shared));
        }
        machine.allow(&list(0..all_cores * threads), &list(0..nodes));
        machine.write("sys/devices/system/cpu/online", &list(0..all_cores * threads));
        machine.write("sys/devices/system/node/online", &list(0..nodes));
        machine.write("sys/devices/system/node/has_memory", &list(0..nodes));
        for node in 0..nodes {
            let cpus = (0..threads).flat_map(|thread| {
                let first = node * cores + thread * all_cores;
                first..first + cores
            });
            let distances = (0..nodes).map(|other| if other == node { "10" } else { "21" });
            machine.node(node, &list(cpus), &distances.collect::<Vec<_>>().join(" "));
        }
        machine
    }

    /// A laptop: 4 cores with 2 threads each, 0 and 4 on the first.
    fn laptop() -> Self {
        Self::with(1, 4, 2)
    }

    /// A server: 2 nodes of 8 cores with 2 threads each.
    fn server() -> Self {
        Self::with(2, 8, 2)
    }

    fn write(&self, path: &str, text: &str) -> &Self {
        let path = self.path().join(path);
        fs::create_dir_all(path.parent().expect("a file lies in one")).expect("a directory");
        fs::write(path, format!("{text}\n")).expect("a file");
        self
    }

    fn cpu(&self, cpu: usize, siblings: &str) {
        let path = format!("sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
        self.write(&path, siblings);
    }

    fn l3(&self, cpu: usize, sharing: &str) {
        for (index, level) in [1, 1, 2, 3].into_iter().enumerate() {
            let cache = format!("sys/devices/system/cpu/cpu{cpu}/cache/index{index}");
            self.write(&format!("{cache}/level"), &level.to_string());
            let shared = if level == 3 { sharing.to_owned() } else { cpu.to_string() };
            self.write(&format!("{cache}/shared_cpu_list"), &shared);
        }
    }

    fn node(&self, node: usize, cpus: &str, distances: &str) -> &Self {
        let path = format!("sys/devices/system/node/node{node}");
        self.write(&format!("{path}/cpulist"), cpus);
        self.write(&format!("{path}/distance"), distances)
    }

    /// The affinity mask, and the nodes whose memory may be used.
    fn allow(&self, cpus: &str, nodes: &str) -> &Self {
        let status = format!(
            "Name:\techo\nCpus_allowed:\tff\nCpus_allowed_list:\t{cpus}\nMems_allowed:\t1\n\
             Mems_allowed_list:\t{nodes}\nThreads:\t1"
        );
        self.write("proc/thread-self/status", &status)
    }

    /// A process in a group of version 2; the files of that group and of its parents follow.
    fn cgroup2(&self, group: &str) -> &Self {
        self.write("proc/thread-self/cgroup", &format!("0::{group}"));
        self.write(
            "proc/thread-self/mountinfo",
            "24 30 0:22 / /sys rw,nosuid - sysfs sysfs rw\n\
             34 24 0:29 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate",
        )
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn topology(&self) -> Topology {
        Topology::read(self.path(), 3)
    }
}

fn list(cpus: impl Iterator<Item = usize>) -> String {
    cpus.map(|cpu| cpu.to_string()).collect::<Vec<_>>().join(",")
}

fn config(toml: &str) -> Config {
    Config::from_toml(&format!("[server]\n{toml}"), "echo.toml").expect("it is right")
}

/// The CPUs of the shards, in their order.
fn plan(machine: &Machine, toml: &str) -> Vec<usize> {
    placement(machine, toml).shards().iter().map(|place| place.cpu).collect()
}

fn placement(machine: &Machine, toml: &str) -> Placement {
    Placement::plan(&config(toml), &machine.topology()).expect("it can be")
}

/// The sentence about a plan that cannot be.
fn refused(machine: &Machine, toml: &str) -> String {
    let error = Placement::plan(&config(toml), &machine.topology()).expect_err("it cannot be");
    let sentence = error.to_string();
    assert!(!sentence.contains('\n'), "one line, not:\n{sentence}");
    sentence
}

#[test]
fn every_cpu_gets_a_shard_numbered_along_nodes() {
    let placement = placement(&Machine::server(), "");
    let shards = placement.shards();
    assert_eq!(shards.len(), 32);
    assert!((0..).zip(shards).all(|(number, place)| place.shard == number));
    let first: Vec<usize> = shards[..16].iter().map(|place| place.cpu).collect();
    assert_eq!(first, (0..8).chain(16..24).collect::<Vec<_>>());
    assert!(shards[..16].iter().all(|place| place.node == Some(0)));
    assert!(shards[16..].iter().all(|place| place.node == Some(1)));
    assert!(placement.notes().is_empty(), "{:?}", placement.notes());
}

#[rstest]
#[case::cores_first(Machine::laptop(), "shards = 4", &[0, 1, 2, 3])]
#[case::then_their_second_threads(Machine::laptop(), "shards = 6", &[0, 1, 2, 3, 4, 5])]
#[case::one_node_before_the_next(Machine::server(), "shards = 3", &[0, 1, 2])]
#[case::all_cores_before_second_threads(
    Machine::server(), "shards = 10", &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
)]
#[case::a_node(Machine::server(), "numa_node = 1\nshards = 2", &[8, 9])]
#[case::a_list(Machine::server(), "cpus = \"30,1,3\"", &[1, 3, 30])]
#[case::the_best_of_a_list(Machine::laptop(), "cpus = \"0,4,1\"\nshards = 2", &[0, 1])]
#[case::four_nodes(Machine::with(4, 2, 1), "numa_node = 3", &[6, 7])]
fn fewer_shards_than_cpus_are_placed_well(
    #[case] machine: Machine,
    #[case] toml: &str,
    #[case] cpus: &[usize],
) {
    assert_eq!(plan(&machine, toml), cpus);
}

#[test]
fn the_node_with_the_most_cores_to_use_comes_first() {
    let machine = Machine::server();
    machine.allow("6-11", "0-1");
    // Node 0 has two of them, node 1 has four.
    assert_eq!(plan(&machine, "shards = 4"), [8, 9, 10, 11]);
}

#[test]
fn shards_share_a_third_level_cache_where_they_can() {
    let machine = Machine::with(1, 8, 1);
    for cpu in 0..8 {
        // Even and odd CPUs have a cache each.
        machine.l3(cpu, &list((0..8).filter(|other| other % 2 == cpu % 2)));
    }
    assert_eq!(machine.topology().cpus[3].l3, Some(1));
    assert_eq!(plan(&machine, "shards = 4"), [0, 2, 4, 6]);
}

#[test]
fn siblings_whose_core_was_left_out_count_as_cores() {
    let machine = Machine::laptop();
    machine.allow("4-7", "0");
    assert_eq!(plan(&machine, "shards = 3"), [4, 5, 6]);
}

#[test]
fn cpus_that_are_offline_get_nothing() {
    let machine = Machine::laptop();
    machine.write("sys/devices/system/cpu/online", "0-1,4");
    assert_eq!(plan(&machine, ""), [0, 1, 4]);
    assert_eq!(
        refused(&machine, "cpus = \"0-2\""),
        "`server.cpus` names 2, not online on this machine: name some of 0-1,4, or \"auto\""
    );
}

#[test]
fn an_affinity_mask_is_kept() {
    let machine = Machine::laptop();
    machine.allow("1-2", "0");
    assert_eq!(plan(&machine, ""), [1, 2]);
    let sentence = refused(&machine, "cpus = \"2-4\"");
    assert!(
        sentence.starts_with("`server.cpus` names 3-4, outside the affinity mask"),
        "{sentence}"
    );
    assert!(sentence.ends_with("name some of 1-2, or \"auto\""), "{sentence}");
}

#[test]
fn a_cpuset_is_kept() {
    let machine = Machine::laptop();
    machine.cgroup2("/").write("sys/fs/cgroup/cpuset.cpus.effective", "2-3");
    assert_eq!(plan(&machine, ""), [2, 3]);
    let sentence = refused(&machine, "cpus = \"0-3\"");
    assert!(sentence.starts_with("`server.cpus` names 0-1, outside the cpuset"), "{sentence}");
}

#[test]
fn a_quota_bounds_the_shards_and_says_so() {
    let machine = Machine::laptop();
    machine.cgroup2("/").write("sys/fs/cgroup/cpu.max", "150000 100000");
    assert_eq!(plan(&machine, ""), [0, 1]);
    let note = "2 of 8 CPUs have a shard (the CPU quota is 1.5)";
    assert_eq!(placement(&machine, "").notes(), [note]);
    assert_eq!(
        refused(&machine, "shards = 4"),
        "`server.shards` is 4, but there are CPUs for 2 (the CPU quota is 1.5): lower \
         it, or name the CPUs in `server.cpus`"
    );
}

#[test]
fn cpus_that_are_named_may_exceed_the_quota_but_not_unsaid() {
    let machine = Machine::laptop();
    machine.cgroup2("/").write("sys/fs/cgroup/cpu.max", "150000 100000");
    let placement = placement(&machine, "cpus = \"0-3\"");
    assert_eq!(placement.shards().len(), 4);
    assert_eq!(placement.notes(), ["4 shards will be throttled (the CPU quota is 1.5)"]);
}

#[test]
fn the_smallest_quota_and_the_nearest_cpuset_of_the_parents_count() {
    let machine = Machine::laptop();
    machine
        .cgroup2("/pod/echo")
        .write("sys/fs/cgroup/pod/echo/cpu.max", "max 100000")
        .write("sys/fs/cgroup/pod/cpu.max", "50000 20000")
        .write("sys/fs/cgroup/cpu.max", "400000 100000")
        .write("sys/fs/cgroup/pod/cpuset.cpus.effective", "1-7");
    let topology = machine.topology();
    assert_eq!(topology.quota, Some(Quota { quota_us: 50_000, period_us: 20_000 }));
    assert_eq!(topology.cpuset, Some((1..=7).collect()));
    assert_eq!(plan(&machine, ""), [1, 2, 3]);
}

#[test]
fn a_group_outside_of_the_namespace_is_seen_as_the_mount() {
    let machine = Machine::laptop();
    machine
        .cgroup2("/../other")
        .write("sys/fs/cgroup/cpu.max", "100000 100000")
        .write("sys/fs/other/cpu.max", "300000 100000");
    assert_eq!(plan(&machine, ""), [0]);
}

#[rstest]
#[case::none("max 100000")]
#[case::nonsense("lots")]
#[case::of_no_time("100000 0")]
fn what_is_no_quota_bounds_nothing(#[case] max: &str) {
    let machine = Machine::laptop();
    machine.cgroup2("/").write("sys/fs/cgroup/cpu.max", max);
    assert_eq!(machine.topology().quota, None);
}

#[test]
fn a_container_of_version_1_is_found_where_its_part_is_mounted() {
    let machine = Machine::laptop();
    machine
        .write(
            "proc/thread-self/cgroup",
            "5:cpuset:/docker/abc\n4:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n0::/x",
        )
        .write(
            "proc/thread-self/mountinfo",
            "40 30 0:30 /docker/abc /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n\
             41 30 0:31 /docker/abc /sys/fs/cgroup/cpuset ro master:9 - cgroup cgroup rw,cpuset",
        )
        .write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "300000")
        .write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000")
        .write("sys/fs/cgroup/cpuset/cpuset.effective_cpus", "4-7");
    assert_eq!(plan(&machine, ""), [4, 5, 6]);

    machine.write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1");
    assert_eq!(plan(&machine, ""), [4, 5, 6, 7]);
}

#[test]
fn memory_comes_from_the_nearest_node_that_has_some() {
    let machine = Machine::with(4, 2, 1);
    machine.write("sys/devices/system/node/has_memory", "0,2").node(1, "2-3", "21 10 31 41").node(
        3,
        "6-7",
        "41 31 21 10",
    );
    let nodes: Vec<_> = placement(&machine, "").shards().iter().map(|place| place.node).collect();
    assert_eq!(nodes, [0, 0, 0, 0, 2, 2, 2, 2].map(Some));
    assert_eq!(machine.topology().cpus[2].node, Some(1));
}

#[test]
fn memory_that_this_process_may_not_use_is_not_planned_with() {
    let machine = Machine::server();
    machine.allow("0-31", "1");
    assert!(placement(&machine, "").shards().iter().all(|place| place.node == Some(1)));
    machine.allow("0-31", "");
    assert!(placement(&machine, "").shards().iter().all(|place| place.node.is_none()));
}

#[test]
fn a_node_of_memory_alone_has_no_shards() {
    let machine = Machine::laptop();
    machine
        .write("sys/devices/system/node/online", "0-1")
        .write("sys/devices/system/node/has_memory", "0-1")
        .node(0, "0-7", "10 14")
        .node(1, "", "14 10");
    assert!(placement(&machine, "").shards().iter().all(|place| place.node == Some(0)));
    assert_eq!(
        refused(&machine, "numa_node = 1"),
        "`server.numa_node` is 1, but that node has no CPU that this server may use: name another, \
         or -1"
    );
}

#[rstest]
#[case::a_node_that_is_not_there(
    Machine::server(),
    "numa_node = 2",
    "`server.numa_node` is 2, but this machine has only 0-1: name one of them, or -1"
)]
#[case::no_nodes(
    Machine::empty(),
    "numa_node = 0",
    "`server.numa_node` is 0, but this machine has no NUMA nodes: name one of them, or -1"
)]
#[case::cpus_of_another_node(
    Machine::server(),
    "numa_node = 0\ncpus = \"6-9\"",
    "`server.cpus` names 8-9, not of `server.numa_node` 0: remove them, or set it to -1"
)]
#[case::too_many_shards(
    Machine::laptop(),
    "shards = 9",
    "`server.shards` is 9, but there are CPUs for 8: lower it"
)]
#[case::too_many_for_a_list(
    Machine::laptop(),
    "cpus = \"0-1\"\nshards = 3",
    "`server.shards` is 3, but there are CPUs for 2: lower it"
)]
fn what_cannot_be_had_is_said_in_one_sentence(
    #[case] machine: Machine,
    #[case] toml: &str,
    #[case] expected: &str,
) {
    assert_eq!(refused(&machine, toml), expected);
}

#[test]
fn masks_that_leave_nothing_are_named() {
    let machine = Machine::laptop();
    machine.allow("0-1", "0").cgroup2("/").write("sys/fs/cgroup/cpuset.cpus.effective", "2-3");
    assert_eq!(
        refused(&machine, ""),
        "there is no CPU for this process: its affinity mask is 0-1, its cpuset 2-3: widen them"
    );
}

#[test]
fn without_any_files_there_are_the_cpus_that_the_standard_library_counts() {
    let machine = Machine::empty();
    assert_eq!(plan(&machine, ""), [0, 1, 2]);
    assert_eq!(placement(&machine, "").shards()[0].node, None);
}

#[test]
fn without_sys_the_affinity_mask_tells_the_cpus() {
    let machine = Machine::empty();
    machine.allow("4-5", "0");
    assert_eq!(plan(&machine, ""), [4, 5]);
}

#[test]
fn the_files_of_a_real_machine_are_read() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/sys/virtual-2-cpus");
    let topology = Topology::read(&root, 64);
    let ids: Vec<usize> = topology.cpus.iter().map(|cpu| cpu.id).collect();
    assert_eq!(ids, [0, 1]);
    assert!(topology.cpus.iter().all(|cpu| cpu.node == Some(0) && cpu.memory_node == Some(0)));
    assert_eq!(topology.affinity, BTreeSet::from([0, 1]));
    assert_eq!(topology.nodes, BTreeSet::from([0]));
    assert_eq!(topology.quota, None);
    let places = Placement::plan(&Config::default(), &topology).unwrap();
    assert_eq!(places.shards().len(), 2);
}

#[cfg(target_os = "linux")]
#[test]
fn a_plan_for_this_machine_can_be_kept() {
    let placement = Placement::plan(&Config::default(), &Topology::detect()).unwrap();
    let cpu = placement.shards()[0].cpu;
    let pinned = std::thread::spawn(move || {
        assert!(hioload::place::pin(cpu));
        Topology::detect()
    });
    // A thread that is pinned sees that one CPU only, and so would the shards that it starts.
    assert_eq!(pinned.join().unwrap().affinity, BTreeSet::from([cpu]));
}

#[test]
fn a_cpu_beyond_every_mask_is_refused_and_not_a_panic() {
    assert!(!hioload::place::pin(1_000_000));
}

#[test]
fn the_bill_counts_the_pool_once() {
    let mut config = Config::default();
    config.memory.pool_bytes = 64 << 20;
    config.limits.connections_max = 1000;
    let bill = MemoryBill::of(&config, &[Compression::off()], 4, 256);
    let of = |what| bill.items().iter().find(|item| item.what == what).unwrap();
    assert_eq!(of("pool").shard_bytes, 64 << 20);
    assert_eq!((of("receive buffers").shard_bytes, of("receive buffers").in_pool), (4 << 20, true));
    assert_eq!((of("outboxes").shard_bytes, of("outboxes").in_pool), (60 << 20, true));
    assert_eq!(of("sessions").shard_bytes, 256_000);
    assert_eq!(of("topics").shard_bytes, 65_536 * 512 + 1000 * 128 * 56);
    assert!(of("mailbox").shard_bytes > 16 << 20);
    let rest = of("topics").shard_bytes + of("ring").shard_bytes + of("mailbox").shard_bytes;
    let shard = (64 << 20) + (8 << 20) + 256_000 + rest;
    assert_eq!(bill.total_bytes(), 4 * shard);

    let text = bill.to_string();
    assert!(text.contains("receive buffers        4 MiB  in the pool: 64 x 64 KiB"), "{text}");
    assert!(text.contains("4 x all that is not in the pool"), "{text}");
}

#[test]
fn without_io_uring_no_ring_is_billed() {
    let mut config = Config::default();
    config.server.reactor = ReactorChoice::Epoll;
    let bill = MemoryBill::of(&config, &[], 1, 256);
    assert!(bill.items().iter().all(|item| item.what != "ring"));
}

#[rstest]
#[case::none(&[], None)]
#[case::off(&[Compression::off()], None)]
#[case::of_the_shard(&[Compression::no_context()], Some((0, 1)))]
#[case::theirs(&[Compression::shared_window()], Some((Inflater::BYTES, 1)))]
#[case::both(&[Compression::dedicated_window()], Some((Inflater::BYTES + Deflater::bytes(15), 1)))]
#[case::a_small_one(
    &[Compression::dedicated_window().window_bits(10)],
    Some((Inflater::BYTES + Deflater::bytes(10), 1))
)]
#[case::the_larger_and_two_levels(
    &[Compression::shared_window().level(1), Compression::off(), Compression::no_context()],
    Some((Inflater::BYTES, 2))
)]
fn windows_are_billed(
    #[case] compressions: &[Compression],
    #[case] expected: Option<(usize, usize)>,
) {
    let mut config = Config::default();
    config.limits.connections_max = 1000;
    let bill = MemoryBill::of(&config, compressions, 1, 256);
    let windows = bill.items().iter().find(|item| item.what == "windows");
    let expected = expected.map(|(session, levels)| {
        1000 * session as u64 + (levels * Whole::BYTES_MAX + Inflater::BYTES) as u64
    });
    assert_eq!(windows.map(|item| item.shard_bytes), expected);
}

#[test]
fn a_bill_beyond_all_memory_does_not_overflow() {
    let mut config = Config::default();
    config.limits.connections_max = usize::MAX;
    let every = Compression::dedicated_window();
    assert_eq!(MemoryBill::of(&config, &[every], usize::MAX, usize::MAX).total_bytes(), u64::MAX);
}

#[test]
fn a_list_of_all_cpus_is_as_good_as_auto() {
    let machine = Machine::server();
    let all = config("cpus = \"0-31\"");
    assert!(matches!(&all.server.cpus, CpuList::Exactly(cpus) if cpus.len() == 32));
    let listed = Placement::plan(&all, &machine.topology()).unwrap();
    assert_eq!(listed.shards(), placement(&machine, "").shards());
}
