//! The file with servers of others: one `[[server]]` each.
//!
//! Comes in: TOML. Goes out: servers, or one sentence that names the line and the key.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// What a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    WebSocket,
    Tcp,
}

/// A server that somebody else built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct External {
    pub(crate) name: String,
    /// The program and its arguments; `{port}` stands for the port.
    pub(crate) command: Vec<String>,
    /// The same so that it never sleeps, if it can do that.
    pub(crate) spin_command: Option<Vec<String>>,
    pub(crate) path: String,
    pub(crate) protocol: Protocol,
    /// What prints its version.
    pub(crate) version: Option<Vec<String>>,
}

const KEYS: &str = "name, command, spin_command, path, protocol and version";
const PORT: &str = "{port}";

/// Reads the servers of a file, called `origin` in errors. Names in `taken` are not free.
pub(crate) fn read(text: &str, origin: &str, taken: &[&str]) -> Result<Vec<External>, String> {
    let source = Source { text, origin };
    let document = DeTable::parse(text).map_err(|error| {
        let place = source.place(error.span().unwrap_or(0..0));
        format!("{place}: {}", error.message().replace('\n', " "))
    })?;
    let mut servers: Vec<External> = Vec::new();
    for (key, value) in document.get_ref() {
        let tables = match (key.get_ref().as_ref(), value.get_ref()) {
            ("server", DeValue::Array(tables)) => tables,
            ("server", _) => {
                return source.fail(key.span(), "server: write it as [[server]], once per server");
            }
            (name, _) => {
                return source.fail(key.span(), &format!("{name}: there is only [[server]]"));
            }
        };
        for table in tables.iter() {
            let server = source.server(table)?;
            let known = servers.iter().map(|known| known.name.as_str());
            if known.chain(taken.iter().copied()).any(|name| name == server.name) {
                let name = &server.name;
                return source
                    .fail(table.span(), &format!("server.name: there is a server {name} already"));
            }
            servers.push(server);
        }
    }
    Ok(servers)
}

/// The text, to tell lines.
struct Source<'a> {
    text: &'a str,
    origin: &'a str,
}

impl Source<'_> {
    fn place(&self, span: Range<usize>) -> String {
        let before = &self.text.as_bytes()[..span.start.min(self.text.len())];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        format!("{}:{line}", self.origin)
    }

    fn fail<T>(&self, span: Range<usize>, problem: &str) -> Result<T, String> {
        Err(format!("{}: {problem}", self.place(span)))
    }

    fn server(&self, table: &Spanned<DeValue<'_>>) -> Result<External, String> {
        let DeValue::Table(keys) = table.get_ref() else {
            return self.fail(table.span(), "server: write it as [[server]], once per server");
        };
        let (mut name, mut command, mut path) = (None, None, None);
        let (mut spin_command, mut version, mut protocol) = (None, None, Protocol::WebSocket);
        for (key, value) in keys {
            match key.get_ref().as_ref() {
                "name" => name = Some(self.string("name", value)?),
                "command" => command = Some(self.command("command", value)?),
                "spin_command" => spin_command = Some(self.command("spin_command", value)?),
                "path" => path = Some(self.path(value)?),
                "protocol" => protocol = self.protocol(value)?,
                "version" => version = Some(self.strings("version", value)?),
                other => {
                    let problem = format!("server.{other}: no such key; the keys are {KEYS}");
                    return self.fail(key.span(), &problem);
                }
            }
        }
        let missing = |key: &str| format!("{}: server.{key} is missing", self.place(table.span()));
        Ok(External {
            name: name.ok_or_else(|| missing("name"))?,
            command: command.ok_or_else(|| missing("command"))?,
            spin_command,
            path: path.unwrap_or_else(|| "/".to_owned()),
            protocol,
            version,
        })
    }

    fn string(&self, key: &str, value: &Spanned<DeValue<'_>>) -> Result<String, String> {
        match value.get_ref() {
            DeValue::String(text) if !text.is_empty() => Ok(text.to_string()),
            _ => self.fail(value.span(), &format!("server.{key}: a string is wanted")),
        }
    }

    fn strings(&self, key: &str, value: &Spanned<DeValue<'_>>) -> Result<Vec<String>, String> {
        let wanted = "an array of strings is wanted: the program, then its arguments";
        match value.get_ref() {
            DeValue::Array(words) if !words.is_empty() => {
                words.iter().map(|word| self.string(key, word)).collect()
            }
            _ => self.fail(value.span(), &format!("server.{key}: {wanted}")),
        }
    }

    fn command(&self, key: &str, value: &Spanned<DeValue<'_>>) -> Result<Vec<String>, String> {
        let words = self.strings(key, value)?;
        if words.iter().any(|word| word.contains(PORT)) {
            return Ok(words);
        }
        self.fail(value.span(), &format!("server.{key}: write {PORT} where its port belongs"))
    }

    fn path(&self, value: &Spanned<DeValue<'_>>) -> Result<String, String> {
        let path = self.string("path", value)?;
        if path.starts_with('/') {
            return Ok(path);
        }
        self.fail(
            value.span(),
            &format!("server.path: it starts with a slash, but {path} does not"),
        )
    }

    fn protocol(&self, value: &Spanned<DeValue<'_>>) -> Result<Protocol, String> {
        match value.get_ref() {
            DeValue::String(text) if text == "ws" => Ok(Protocol::WebSocket),
            DeValue::String(text) if text == "tcp" => Ok(Protocol::Tcp),
            _ => self.fail(value.span(), "server.protocol: \"ws\" or \"tcp\" is wanted"),
        }
    }
}

/// A command with the port filled in.
pub(crate) fn with_port(words: &[String], port: u16) -> Vec<String> {
    words.iter().map(|word| word.replace(PORT, &port.to_string())).collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{External, Protocol, read, with_port};

    #[test]
    fn a_server_is_read_with_its_defaults() {
        let text = "[[server]]\nname = \"mine\"\ncommand = [\"./mine\", \"--port={port}\"]\n";
        let servers = read(text, "compare.toml", &[]).unwrap();
        let command = vec!["./mine".to_owned(), "--port={port}".to_owned()];
        assert_eq!(with_port(&command, 81), ["./mine", "--port=81"]);
        let expected = External {
            name: "mine".to_owned(),
            command,
            spin_command: None,
            path: "/".to_owned(),
            protocol: Protocol::WebSocket,
            version: None,
        };
        assert_eq!(servers, [expected]);
    }

    #[test]
    fn every_key_is_read() {
        let text = "[[server]]\nname = 'a'\ncommand = ['a', '{port}']\nspin_command = ['s', \
                    '{port}']\npath = '/echo'\nprotocol = 'tcp'\nversion = ['a', '-V']\n\
                    [[server]]\nname = 'b'\ncommand = ['b{port}']\n";
        let servers = read(text, "compare.toml", &["c"]).unwrap();
        assert_eq!(servers[0].path, "/echo");
        assert_eq!(servers[0].protocol, Protocol::Tcp);
        assert_eq!(servers[0].spin_command.as_deref().unwrap(), ["s", "{port}"]);
        assert_eq!(servers[0].version.as_deref().unwrap(), ["a", "-V"]);
        assert_eq!(servers[1].name, "b");
    }

    #[rstest]
    #[case("[[server]]\nname = 'a'\ncomand = ['a']", "x:3: server.comand: no such key")]
    #[case("[[server]]\nname = 'a'", "x:1: server.command is missing")]
    #[case("[[server]]\ncommand = ['{port}']", "x:1: server.name is missing")]
    #[case("[[server]]\nname = 7", "x:2: server.name: a string is wanted")]
    #[case("[[server]]\nname = 'a'\ncommand = 'a {port}'", "x:3: server.command: an array")]
    #[case("[[server]]\nname = 'a'\ncommand = ['a']", "x:3: server.command: write {port} where")]
    #[case("[[server]]\nspin_command = []", "x:2: server.spin_command: an array of strings")]
    #[case("[[server]]\npath = 'echo'", "x:2: server.path: it starts with a slash, but echo")]
    #[case("[[server]]\n\nprotocol = 'udp'", "x:3: server.protocol: \"ws\" or \"tcp\"")]
    #[case("[server]\nname = 'a'", "x:1: server: write it as [[server]]")]
    #[case("server = [1]", "x:1: server: write it as [[server]]")]
    #[case("[[servers]]\nname = 'a'", "x:1: servers: there is only [[server]]")]
    #[case("[[server]]\nname = 'gws'\ncommand = ['{port}']", "x:1: server.name: there is a server")]
    #[case("[[server]]\nname = ", "x:2: ")]
    fn what_is_wrong_is_one_sentence_with_its_line(#[case] text: &str, #[case] sentence: &str) {
        let problem = read(text, "x", &["gws"]).unwrap_err();
        assert!(problem.starts_with(sentence), "{problem}");
        assert_eq!(problem.lines().count(), 1);
    }
}
