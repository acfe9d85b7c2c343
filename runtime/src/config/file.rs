//! From the text of a file to a configuration.
//!
//! Comes in: TOML and what to call it. Goes out: a checked [`Config`], or an error that names the
//! line. Keys are looked up by name in the table of [`Config::KEYS`], so that whatever is left over
//! is known to be a mistake, and the nearest known key can be named.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::check::check;
use super::sections::Config;
use super::value::Key;
use super::{ConfigError, Place};

pub(super) fn read(text: &str, origin: &str) -> Result<Config, ConfigError> {
    let source = Source { text, origin };
    let document = DeTable::parse(text).map_err(|error| source.syntax(&error))?;
    let document = document.get_ref();
    for (section, keys) in document {
        source.section(section, keys)?;
    }
    let mut config = Config::default();
    for (key, value) in Config::KEYS.iter().zip(config.values_mut()) {
        let Some((written, given)) = find(document, key.path) else { continue };
        value.read(key, given.get_ref()).map_err(|problem| {
            let place = source.place(written.span());
            ConfigError::Value { place, key: key.path, problem }
        })?;
    }
    check(&config).map_err(|finding| {
        // One of the two was written: the defaults fit together.
        let paths = [Some(finding.key), finding.other];
        let written = paths.into_iter().flatten().find_map(|path| find(document, path));
        finding.at(written.map_or_else(Place::default, |(key, _)| source.place(key.span())))
    })?;
    Ok(config)
}

/// The text, to tell lines.
struct Source<'a> {
    text: &'a str,
    origin: &'a str,
}

impl Source<'_> {
    fn place(&self, span: Range<usize>) -> Place {
        let before = &self.text.as_bytes()[..span.start.min(self.text.len())];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        Place::new(self.origin, line)
    }

    fn syntax(&self, error: &toml::de::Error) -> ConfigError {
        let place = self.place(error.span().unwrap_or(0..0));
        ConfigError::Syntax { place, problem: error.message().replace('\n', " ") }
    }

    /// Checks that a section and all the keys in it exist.
    fn section(
        &self,
        section: &Spanned<DeString<'_>>,
        keys: &Spanned<DeValue<'_>>,
    ) -> Result<(), ConfigError> {
        let place = self.place(section.span());
        let name = section.get_ref().as_ref();
        let is_known = Config::KEYS.iter().any(|key| key.section() == name);
        match keys.get_ref() {
            DeValue::Table(keys) if is_known => self.keys(name, keys),
            DeValue::Table(_) => Err(unknown_section(place, name)),
            _ if is_known => {
                let hint = format!("it is a section: write [{name}] on a line of its own");
                Err(ConfigError::Unknown { place, what: "key", name: shown(name), hint })
            }
            _ => Err(unknown_key(place, "", name)),
        }
    }

    fn keys(&self, section: &str, keys: &DeTable<'_>) -> Result<(), ConfigError> {
        let is_known = |name: &str| {
            Config::KEYS.iter().any(|key| key.section() == section && key.name() == name)
        };
        let unknown = keys.keys().find(|key| !is_known(key.get_ref()));
        match unknown {
            Some(key) => Err(unknown_key(self.place(key.span()), section, key.get_ref())),
            None => Ok(()),
        }
    }
}

type Entry<'t, 'i> = (&'t Spanned<DeString<'i>>, &'t Spanned<DeValue<'i>>);

/// The key as it is written in the file, and its value.
fn find<'t, 'i>(document: &'t DeTable<'i>, path: &str) -> Option<Entry<'t, 'i>> {
    let (section, name) = path.split_once('.')?;
    document.get(section)?.get_ref().as_table()?.get_key_value(name)
}

fn unknown_section(place: Place, name: &str) -> ConfigError {
    let mut sections: Vec<_> = Config::KEYS.iter().map(Key::section).collect();
    sections.dedup();
    let near = sections.iter().find(|section| is_near(name, section));
    let hint = match near {
        Some(section) => format!("did you mean [{section}]?"),
        None => format!("the sections are {}", sections.join(", ")),
    };
    ConfigError::Unknown { place, what: "section", name: shown(name), hint }
}

/// `section` is empty for a key that is written above all sections.
fn unknown_key(place: Place, section: &str, name: &str) -> ConfigError {
    let nearest = Config::KEYS.iter().filter(|key| is_near(name, key.name())).min_by_key(|key| {
        let letters = distance(name, key.name());
        // The right name in the wrong section before a similar one in this section.
        (letters > 0, key.section() != section, letters)
    });
    let hint = match nearest {
        Some(key) if key.section() == section => format!("did you mean `{}`?", key.name()),
        Some(key) if key.name() == name => format!("it belongs under [{}]", key.section()),
        Some(key) => format!("did you mean `{}` under [{}]?", key.name(), key.section()),
        None => known_keys(section),
    };
    let name = shown(name);
    let name = if section.is_empty() { name } else { format!("{section}.{name}") };
    ConfigError::Unknown { place, what: "key", name, hint }
}

/// A name as it was written; a quoted one may have line feeds and other control characters in it,
/// and an error is one line.
fn shown(name: &str) -> String {
    name.escape_debug().to_string()
}

fn known_keys(section: &str) -> String {
    if section.is_empty() {
        return "every key belongs to a section such as [server]".to_owned();
    }
    let names: Vec<_> =
        Config::KEYS.iter().filter(|key| key.section() == section).map(Key::name).collect();
    format!("the keys of [{section}] are {}", names.join(", "))
}

/// Whether one is probably a misspelling of the other: at most a third of it differs.
fn is_near(name: &str, known: &str) -> bool {
    distance(name, known) <= known.len().div_ceil(3)
}

/// Letters to insert, remove or replace to get from one to the other (Levenshtein).
fn distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.bytes().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}
