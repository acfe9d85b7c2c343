//! The types that a key can have: how a value is read from TOML, checked and written.

use std::ops::RangeInclusive;

use toml::de::DeValue;

use super::choice::Word;
use super::{ConfigError, CpuList, ListenAddress, ShardCount};

/// Most addresses to listen on, so that a shard can keep room for its listeners.
const LISTEN_MAX: usize = 64;

/// How much of a wrong value is quoted.
const QUOTED_CHARS_MAX: usize = 40;

/// What is known of a key beside its value.
pub(super) struct Key {
    /// Section and name: `limits.headers_max`.
    pub(super) path: &'static str,
    /// The lines of its description.
    pub(super) doc: &'static [&'static str],
    /// What a number may be.
    pub(super) range: Option<RangeInclusive<u64>>,
}

impl Key {
    pub(super) fn section(&self) -> &'static str {
        self.split().0
    }

    pub(super) fn name(&self) -> &'static str {
        self.split().1
    }

    fn split(&self) -> (&'static str, &'static str) {
        self.path.split_once('.').expect("a path has a section and a name")
    }
}

/// The value of a key. Problems are told as predicates: `must be true or false, but is 5`.
pub(super) trait Value {
    /// Takes what the file says.
    fn read(&mut self, key: &Key, value: &DeValue<'_>) -> Result<(), String>;

    /// Checks what the type alone does not ensure.
    fn check(&self, _key: &Key) -> Result<(), String> {
        Ok(())
    }

    /// As the right side of a line of TOML.
    fn to_toml(&self) -> String;
}

impl Value for bool {
    fn read(&mut self, _: &Key, value: &DeValue<'_>) -> Result<(), String> {
        *self = value.as_bool().ok_or_else(|| mismatch("true or false", value))?;
        Ok(())
    }

    fn to_toml(&self) -> String {
        self.to_string()
    }
}

macro_rules! numbers {
    ($($Number:ty),*) => {$(
        impl Value for $Number {
            fn read(&mut self, key: &Key, value: &DeValue<'_>) -> Result<(), String> {
                *self = integer(value).ok_or_else(|| mismatch(&whole_number(key), value))?;
                Ok(())
            }

            fn check(&self, key: &Key) -> Result<(), String> {
                let value = u64::try_from(*self).unwrap_or(u64::MAX);
                match &key.range {
                    Some(range) if !range.contains(&value) => {
                        Err(format!("must be {}, but is {self}", whole_number(key)))
                    }
                    _ => Ok(()),
                }
            }

            fn to_toml(&self) -> String {
                self.to_string()
            }
        }
    )*};
}

numbers!(u8, u16, u32, u64, usize);

impl<W: Word> Value for W {
    fn read(&mut self, _: &Key, value: &DeValue<'_>) -> Result<(), String> {
        let found =
            value.as_str().and_then(|word| Self::WORDS.iter().find(|(known, _)| *known == word));
        let words = || Self::WORDS.iter().map(|(word, _)| format!("{word:?}")).collect::<Vec<_>>();
        *self = found.ok_or_else(|| mismatch(&words().join(" or "), value))?.1;
        Ok(())
    }

    fn to_toml(&self) -> String {
        string(self.word())
    }
}

impl Value for ShardCount {
    fn read(&mut self, key: &Key, value: &DeValue<'_>) -> Result<(), String> {
        if value.as_str() == Some(AUTO) {
            *self = Self::Auto;
            return Ok(());
        }
        let wanted = || format!("\"{AUTO}\" or {}", whole_number(key));
        *self = Self::Exactly(integer(value).ok_or_else(|| mismatch(&wanted(), value))?);
        Ok(())
    }

    fn check(&self, key: &Key) -> Result<(), String> {
        match self {
            Self::Auto => Ok(()),
            Self::Exactly(number) => number.check(key),
        }
    }

    fn to_toml(&self) -> String {
        match self {
            Self::Auto => string(AUTO),
            Self::Exactly(number) => number.to_toml(),
        }
    }
}

impl Value for CpuList {
    fn read(&mut self, _: &Key, value: &DeValue<'_>) -> Result<(), String> {
        let text = value
            .as_str()
            .ok_or_else(|| mismatch("\"auto\" or a list of CPUs such as \"0-3,8\"", value))?;
        *self = text.parse().map_err(wrong)?;
        Ok(())
    }

    fn check(&self, _: &Key) -> Result<(), String> {
        match self {
            Self::Exactly(cpus) if cpus.is_empty() => {
                Err("names no CPU: write \"auto\" or a list such as \"0-3,8\"".to_owned())
            }
            _ => Ok(()),
        }
    }

    fn to_toml(&self) -> String {
        string(&self.to_string())
    }
}

/// The number of a NUMA node, or -1 for any.
impl Value for i32 {
    fn read(&mut self, _: &Key, value: &DeValue<'_>) -> Result<(), String> {
        *self = integer(value).ok_or_else(|| mismatch(NODE, value))?;
        Ok(())
    }

    fn check(&self, _: &Key) -> Result<(), String> {
        if *self < -1 { Err(format!("must be {NODE}, but is {self}")) } else { Ok(()) }
    }

    fn to_toml(&self) -> String {
        self.to_string()
    }
}

impl Value for Vec<ListenAddress> {
    fn read(&mut self, _: &Key, value: &DeValue<'_>) -> Result<(), String> {
        let texts = strings(value, "a list of addresses such as [\"127.0.0.1:9001\"]")?;
        *self = texts.iter().map(|text| text.parse().map_err(wrong)).collect::<Result<_, _>>()?;
        Ok(())
    }

    fn check(&self, _: &Key) -> Result<(), String> {
        if !(1..=LISTEN_MAX).contains(&self.len()) {
            return Err(format!("must have 1 to {LISTEN_MAX} addresses, but has {}", self.len()));
        }
        let any_port = |address: &ListenAddress| match address {
            ListenAddress::Tcp(address) => address.port() == 0,
            ListenAddress::Unix(_) => false,
        };
        let again = self
            .iter()
            .enumerate()
            .find(|(index, address)| !any_port(address) && self[..*index].contains(address));
        match again {
            Some((_, address)) => {
                let address = address.to_string();
                Err(format!("names {} twice: remove one of them", address.escape_debug()))
            }
            None => Ok(()),
        }
    }

    fn to_toml(&self) -> String {
        list(self.iter().map(ToString::to_string))
    }
}

/// Origins: `*`, `null`, or scheme and host as browsers send them (RFC 6454 section 6.2).
impl Value for Vec<String> {
    fn read(&mut self, _: &Key, value: &DeValue<'_>) -> Result<(), String> {
        *self = strings(value, "a list of origins such as [\"https://example.com\"]")?;
        Ok(())
    }

    fn check(&self, _: &Key) -> Result<(), String> {
        let is_origin = |text: &String| {
            let host = text.split_once("://").map_or("", |(_, host)| host);
            let is_host = |char: char| !char.is_whitespace() && !"/?#*".contains(char);
            text == "*" || text == "null" || !host.is_empty() && host.chars().all(is_host)
        };
        match self.iter().find(|text| !is_origin(text)) {
            Some(text) => Err(format!(
                "has {text:?}, which no browser sends: write scheme and host without a path, as \
                 in \"https://example.com\", or \"*\""
            )),
            None => Ok(()),
        }
    }

    fn to_toml(&self) -> String {
        list(self.iter().cloned())
    }
}

/// What `numa_node` may be.
const NODE: &str = "the number of a NUMA node, or -1 for any";

/// The word for a choice that is left to the server.
const AUTO: &str = "auto";

fn integer<N: TryFrom<i128>>(value: &DeValue<'_>) -> Option<N> {
    let integer = value.as_integer()?;
    let wide = i128::from_str_radix(integer.as_str(), integer.radix()).ok()?;
    N::try_from(wide).ok()
}

fn strings(value: &DeValue<'_>, wanted: &str) -> Result<Vec<String>, String> {
    let items = value.as_array().ok_or_else(|| mismatch(wanted, value))?;
    items
        .iter()
        .map(|item| match item.get_ref().as_str() {
            Some(text) => Ok(text.to_owned()),
            None => Err(format!("must be {wanted}, but has {}", quoted(item.get_ref()))),
        })
        .collect()
}

fn whole_number(key: &Key) -> String {
    match &key.range {
        Some(range) => format!("a whole number from {} to {}", range.start(), range.end()),
        None => "a whole number".to_owned(),
    }
}

fn mismatch(wanted: &str, value: &DeValue<'_>) -> String {
    format!("must be {wanted}, but is {}", quoted(value))
}

/// The sentence of a text that could not be read, as a predicate.
fn wrong(error: ConfigError) -> String {
    format!("is wrong: {error}")
}

fn quoted(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) if text.chars().count() <= QUOTED_CHARS_MAX => format!("{text:?}"),
        DeValue::String(_) => "a longer text".to_owned(),
        // As they are written: the parser lets control characters in them pass.
        DeValue::Integer(integer) => integer.to_string().escape_debug().to_string(),
        DeValue::Float(float) => float.to_string().escape_debug().to_string(),
        DeValue::Boolean(boolean) => boolean.to_string(),
        DeValue::Datetime(datetime) => datetime.to_string(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

fn string(text: &str) -> String {
    toml::Value::from(text).to_string()
}

fn list(items: impl Iterator<Item = String>) -> String {
    toml::Value::Array(items.map(toml::Value::from).collect()).to_string()
}
