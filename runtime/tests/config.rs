//! The configuration: what is read, what is refused, and the sentence that says so.

use std::path::Path;

use hioload::config::{
    Config, ConfigError, CpuList, HugePagesChoice, ListenAddress, ReactorChoice, ShardCount,
    SlowReader, TierChoice,
};
use rstest::rstest;

const ORIGIN: &str = "echo.toml";

/// The sentence about a configuration that is wrong.
fn sentence(text: &str) -> String {
    let error = Config::from_toml(text, ORIGIN).expect_err("it is wrong");
    let sentence = error.to_string();
    assert!(!sentence.contains('\n'), "one line, not:\n{sentence}");
    sentence
}

#[test]
fn an_empty_file_gives_the_defaults() {
    let config = Config::from_toml("", ORIGIN).unwrap();
    assert_eq!(config, Config::default());
    assert_eq!(config.server.listen, [ListenAddress::Tcp(([127, 0, 0, 1], 9001).into())]);
    assert_eq!(config.limits.connections_max, 100_000);
    assert_eq!(config.memory.buffers * config.memory.buffer_bytes, 4 << 20);
    assert_eq!(config.websocket.outbox_max_bytes, (16 << 20) + (64 << 10));
    assert_eq!(config.shutdown.drain_ms, 10_000);
}

#[test]
fn the_defaults_pass_their_own_check() {
    Config::default().check().unwrap();
}

#[test]
fn every_key_can_be_written_and_read_again() {
    let text = r#"
        [server]
        listen = ["[::1]:9001", "unix:/run/echo \"1\".sock"]
        cpus = "8,0-3"
        shards = 4
        numa_node = 1
        reactor = "uring"
        uring_tier = "bundles"
        pin = false
        [limits]
        connections_max = 1_000
        handshakes_max = 0x10
        [memory]
        huge_pages = "explicit"
        [uring]
        entries = 64
        [websocket]
        slow_reader = "close"
        origins = ["https://example.com:8443", "*"]
        [shutdown]
        drain_ms = 0
    "#;
    let config = Config::from_toml(text, ORIGIN).unwrap();
    let server = &config.server;
    assert_eq!(server.listen[1], ListenAddress::Unix("/run/echo \"1\".sock".into()));
    assert_eq!(server.cpus, CpuList::Exactly([0, 1, 2, 3, 8].into()));
    assert_eq!((server.shards, server.numa_node), (ShardCount::Exactly(4), 1));
    assert_eq!(server.reactor, ReactorChoice::Uring);
    assert_eq!(server.uring_tier, TierChoice::Bundles);
    assert_eq!(config.limits.handshakes_max, 16);
    assert_eq!(config.memory.huge_pages, HugePagesChoice::Explicit);
    assert_eq!(config.websocket.slow_reader, SlowReader::Close);
    assert_eq!(Config::from_toml(&config.to_toml(), ORIGIN).unwrap(), config);
}

#[test]
fn what_is_printed_of_the_defaults_reads_as_the_defaults_and_says_what_each_key_is() {
    let text = Config::default().to_toml();
    assert_eq!(Config::from_toml(&text, ORIGIN).unwrap(), Config::default());
    let mut described = false;
    for line in text.lines() {
        let is_key = line.contains(" = ") && !line.starts_with('#');
        assert!(!is_key || described, "no comment above: {line}");
        described = line.starts_with("# ");
    }
    assert!(text.contains("\nidle_timeout_ms = 120000\n"), "{text}");
}

#[rstest]
#[case::syntax("[server]\nlisten 5", "echo.toml:2: not valid TOML: ")]
#[case::twice("[uring]\nentries = 8\nentries = 16", "echo.toml:3: not valid TOML: duplicate key")]
#[case::unclosed("[server]\n\ncpus = \"0-3", "echo.toml:3: not valid TOML: ")]
#[case::misspelt(
    "# x\n[limits]\nconections_max = 5",
    "echo.toml:3: unknown key `limits.conections_max`: did you mean `connections_max`?"
)]
#[case::no_unit(
    "[websocket]\nidle_timeout = 5",
    "echo.toml:2: unknown key `websocket.idle_timeout`: did you mean `idle_timeout_ms`?"
)]
#[case::elsewhere(
    "[limits]\nidle_timeout_ms = 5",
    "echo.toml:2: unknown key `limits.idle_timeout_ms`: it belongs under [websocket]"
)]
#[case::elsewhere_misspelt(
    "[limits]\nidle_timeout = 5",
    "echo.toml:2: unknown key `limits.idle_timeout`: did you mean `idle_timeout_ms` under \
     [websocket]?"
)]
#[case::no_section("listen = []", "echo.toml:1: unknown key `listen`: it belongs under [server]")]
#[case::nothing_near(
    "[shutdown]\nzzz = 5",
    "echo.toml:2: unknown key `shutdown.zzz`: the keys of [shutdown] are drain_ms"
)]
#[case::nothing_near_above(
    "zzz = 5",
    "echo.toml:1: unknown key `zzz`: every key belongs to a section such as [server]"
)]
#[case::section(
    "\n[websockets]",
    "echo.toml:2: unknown section `websockets`: did you mean \
     [websocket]?"
)]
#[case::strange_section(
    "[zzz]",
    "echo.toml:1: unknown section `zzz`: the sections are server, limits, memory, uring, \
     websocket, iproto, shutdown"
)]
#[case::no_table(
    "server = 5",
    "echo.toml:1: unknown key `server`: it is a section: write [server] on a line of its own"
)]
fn what_is_not_a_key_is_named_with_what_was_meant(#[case] text: &str, #[case] expected: &str) {
    let sentence = sentence(text);
    assert!(sentence.starts_with(expected), "{sentence}");
}

/// TOML names may be quoted, and then have any character in them; in numbers the parser lets some
/// of them pass.
#[rstest]
#[case::key("[limits]\n\"a\\nb\" = 1", "echo.toml:2: unknown key `limits.a\\nb`: ")]
#[case::section("[\"\\u001b[31m\"]", "echo.toml:1: unknown section `\\u{1b}[31m`: ")]
#[case::address(
    "[server]\nlisten = [\"unix:/a\\nb\", \"unix:/a\\nb\"]",
    "echo.toml:2: `server.listen` names unix:/a\\nb twice: "
)]
#[case::number(
    "[server]\nshards = 65_5\u{13}6",
    "echo.toml:2: `server.shards` must be \"auto\" or a whole number from 1 to 1024, but is 655\\u{13}6"
)]
fn what_is_quoted_with_control_characters_stays_on_the_line_of_its_error(
    #[case] text: &str,
    #[case] expected: &str,
) {
    let said = sentence(text);
    assert!(said.starts_with(expected), "{said:?}");
}

#[rstest]
#[case("server", "listen = \"127.0.0.1:9001\"", "must be a list of addresses such as ")]
#[case(
    "server",
    "listen = [9001]",
    "must be a list of addresses such as [\"127.0.0.1:9001\"], but \
     has 9001"
)]
#[case("server", "listen = []", "must have 1 to 64 addresses, but has 0")]
#[case("server", "listen = [\"9001\"]", "is wrong: \"9001\" is not an address: write an IP ")]
#[case("server", "listen = [\"localhost:9001\"]", "is wrong: \"localhost:9001\" is not an address")]
#[case("server", "listen = [\"unix:\"]", "is wrong: \"unix:\" is not a Unix socket: write unix:")]
#[case("server", "listen = [\":1\", \"[::]:1\"]", "names [::]:1 twice: remove one of them")]
#[case("server", "cpus = 3", "must be \"auto\" or a list of CPUs such as \"0-3,8\", but is 3")]
#[case("server", "cpus = \"\"", "is wrong: \"\" is not a list of CPUs: write \"auto\", or")]
#[case("server", "cpus = \"3-1\"", "is wrong: \"3-1\" is not a list of CPUs")]
#[case("server", "cpus = \"0,99999\"", "is wrong: \"0,99999\" is not a list of CPUs")]
#[case("server", "shards = 0", "must be a whole number from 1 to 1024, but is 0")]
#[case(
    "server",
    "shards = \"two\"",
    "must be \"auto\" or a whole number from 1 to 1024, but is \"two\""
)]
#[case("server", "numa_node = -2", "must be the number of a NUMA node, or -1 for any, but is -2")]
#[case(
    "server",
    "reactor = \"kqueue\"",
    "must be \"auto\" or \"uring\" or \"epoll\", but is \"kqueue\""
)]
#[case("server", "pin = 1", "must be true or false, but is 1")]
#[case("limits", "headers_max = 129", "must be a whole number from 1 to 128, but is 129")]
#[case("limits", "headers_max = -1", "must be a whole number from 1 to 128, but is -1")]
#[case("limits", "headers_max = \"many\"", "must be a whole number from 1 to 128, but is \"many\"")]
#[case("limits", "headers_max = 1.5", "must be a whole number from 1 to 128, but is 1.5")]
#[case("limits", "handshakes_max = 99999999999999999999", "must be a whole number from 1 to ")]
#[case("limits", "handshake_timeout_ms = 0", "must be a whole number from 1 to 86400000, but is 0")]
#[case("memory", "buffer_bytes = 65535", "must be a power of two, but is 65535: write 65536")]
#[case("memory", "buffers = 3", "must be a whole number from 4 to 32768, but is 3")]
#[case(
    "memory",
    "huge_pages = true",
    "must be \"off\" or \"transparent\" or \"explicit\", but is true"
)]
#[case("memory", "pool_bytes = 4194304", "is 4194304, but the receive buffers (64 x 65536) and ")]
#[case("uring", "entries = 1000", "must be a power of two, but is 1000: write 1024")]
#[case("websocket", "idle_timeout_ms = 1", "must be 0 (never) or at least 2, but is 1")]
#[case("websocket", "outbox_low_bytes = 65537", "is 65537, but must not be above ")]
#[case("websocket", "outbox_max_bytes = 1048576", "is 1048576, but must be at least 1114112: ")]
#[case("websocket", "origins = [\"example.com\"]", "has \"example.com\", which no browser sends: ")]
#[case("websocket", "origins = [\"https://a/b\"]", "has \"https://a/b\", which no browser sends: ")]
#[case("shutdown", "drain_ms = [1]", "must be a whole number from 0 to 86400000, but is a list")]
fn a_wrong_value_is_named_with_its_line_and_what_it_may_be(
    #[case] section: &str,
    #[case] line: &str,
    #[case] problem: &str,
) {
    let name = line.split(' ').next().unwrap();
    let sentence = sentence(&format!("# a comment\n[{section}]\n\n{line}\n"));
    assert!(
        sentence.starts_with(&format!("echo.toml:4: `{section}.{name}` {problem}")),
        "{sentence}"
    );
}

#[test]
fn keys_that_do_not_fit_each_other_are_shown_where_the_file_has_one_of_them() {
    // The outbox is left at its default: the line is that of the message limit.
    let sentence = sentence("[memory]\n[websocket]\nmessage_bytes_max = 67108864\n");
    assert!(sentence.starts_with("echo.toml:3: `websocket.outbox_max_bytes` is"), "{sentence}");

    let tier = "[server]\nreactor = \"epoll\"\nuring_tier = \"base\"\n";
    let error = Config::from_toml(tier, ORIGIN).unwrap_err().to_string();
    assert!(error.starts_with("echo.toml:3: `server.uring_tier` asks for \"base\""), "{error}");
}

#[test]
fn what_is_set_in_code_is_checked_too() {
    let mut config = Config::default();
    config.limits.headers_max = 1000;
    let error = config.check().unwrap_err();
    assert!(matches!(error, ConfigError::Value { key: "limits.headers_max", .. }), "{error:?}");
    assert_eq!(
        error.to_string(),
        "`limits.headers_max` must be a whole number from 1 to 128, but is 1000"
    );
}

#[test]
fn two_listeners_may_both_ask_for_any_port() {
    let text = "[server]\nlisten = [\"127.0.0.1:0\", \"127.0.0.1:0\"]";
    assert_eq!(Config::from_toml(text, ORIGIN).unwrap().server.listen.len(), 2);
}

#[test]
fn a_file_is_read_and_named_in_its_errors() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("echo.toml");
    std::fs::write(&path, "[uring]\nentries = 256\n").unwrap();
    assert_eq!(Config::from_file(&path).unwrap().uring.entries, 256);

    std::fs::write(&path, "[uring]\nentry = 256\n").unwrap();
    let sentence = Config::from_file(&path).unwrap_err().to_string();
    assert!(sentence.starts_with(&format!("{}:2: unknown key", path.display())), "{sentence}");
}

#[rstest]
#[case::missing("there is no such file; check the path")]
#[case::directory("it is a directory; name the file in it")]
#[case::binary("it is not UTF-8 text; save it as UTF-8")]
#[case::endless("it is larger than 1 MiB")]
fn a_file_that_cannot_be_read_is_named_with_the_cause(#[case] advice: &str) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("echo.toml");
    let path = match advice {
        _ if advice.contains("directory") => directory.path(),
        _ if advice.contains("UTF-8") => {
            std::fs::write(&file, [0xff, 0xfe]).unwrap();
            &file
        }
        _ if advice.contains("MiB") => Path::new("/dev/zero"),
        _ => &file,
    };
    let sentence = Config::from_file(path).unwrap_err().to_string();
    let expected = format!("cannot read the configuration file {}: {advice}", path.display());
    assert!(sentence.starts_with(&expected) && !sentence.contains('\n'), "{sentence}");
}
