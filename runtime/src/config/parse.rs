//! From text to a configuration, and back.

use std::path::Path;

use super::{Config, ConfigError};

impl Config {
    /// Reads a TOML file.
    ///
    /// # Errors
    /// It cannot be read, or what [`from_toml`](Self::from_toml) says.
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::from_toml(&text, &path.display().to_string())
    }

    /// Reads TOML; `origin` is what errors call it.
    ///
    /// # Errors
    /// It is no TOML, has an unknown key, a value of another type, or one that cannot be.
    pub fn from_toml(text: &str, origin: &str) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            let line = 1 + text[..at.min(text.len())].matches('\n').count();
            let problem = explain(error.message(), text, line);
            ConfigError::Text { origin: origin.to_owned(), line, problem }
        })?;
        match config.check() {
            Err(ConfigError::Value { key, problem, .. }) => {
                let place = match line_of(text, &key) {
                    Some(line) => format!("{origin}:{line}"),
                    None => origin.to_owned(),
                };
                Err(ConfigError::Value { origin: Some(place), key, problem })
            }
            other => other.map(|()| config),
        }
    }

    /// The whole configuration as TOML, which reads back as the same.
    #[must_use]
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("numbers, strings and lists are all that is in it")
    }
}

/// The line on which a key (`limits.headers_max`) is set, from 1.
fn line_of(text: &str, key: &str) -> Option<usize> {
    let (table, name) = key.split_once('.')?;
    let mut current = "";
    for (line, content) in (1..).zip(text.lines()) {
        let content = content.trim();
        if let Some(header) = content.strip_prefix('[') {
            current = header.split(']').next()?.trim();
        }
        let set = content.split('=').next().map(str::trim);
        if set == Some(key) || current == table && set == Some(name) {
            return Some(line);
        }
    }
    None
}

/// Turns serde's words into a sentence that says how to mend it.
fn explain(message: &str, text: &str, line: usize) -> String {
    let message = message.trim().replace('\n', "; ");
    let Some(rest) = message.strip_prefix("unknown field `") else {
        return message;
    };
    let (unknown, known) = rest.split_once('`').unwrap_or((rest, ""));
    let known: Vec<&str> = known.split('`').skip(1).step_by(2).collect();
    let table = table_at(text, line).map(|table| format!(" in [{table}]")).unwrap_or_default();
    let nearest = known.iter().min_by_key(|name| distance(unknown, name));
    match nearest.filter(|name| distance(unknown, name) <= unknown.len().max(name.len()) / 2) {
        Some(name) => format!("unknown key `{unknown}`{table}; did you mean `{name}`?"),
        None => format!("unknown key `{unknown}`{table}; known are {}", known.join(", ")),
    }
}

/// The table that a line lies in.
fn table_at(text: &str, line: usize) -> Option<&str> {
    let before = text.lines().take(line.saturating_sub(1)).collect::<Vec<_>>();
    let header = before.into_iter().rev().find_map(|line| line.trim().strip_prefix('['))?;
    header.split(']').next()
}

/// How many characters must be changed, added or removed to make one of the other (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (index, from) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for (column, to) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
}
