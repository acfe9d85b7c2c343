//! What is sent: messages made beforehand as far as they are the same for all connections, and
//! what has to come back.
//!
//! A message is a stamp of eight characters, which connection and message number make, and then a
//! piece of a text that all share, in a masked and in a plain copy. So a swapped, repeated or lost
//! reply is noticed, and a message costs one copy.

use hioload_benches::documents::documents;
use hioload_protocol::deflate::{Deflater, WINDOW_BITS_MAX};
use hioload_protocol::iproto;
use hioload_protocol::ws::Opcode;
use hioload_protocol::ws::frame::{HEADER_BYTES_MAX, Header};
use hioload_protocol::ws::mask::mask;

use crate::size::Sizes;

/// Masks every frame: the server has to unmask all the same.
pub(crate) const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
pub(crate) const STAMP_BYTES: usize = 8;
/// How far apart in the text the pieces may begin.
const SPREAD_BYTES: usize = 4096;
/// Different messages, before the stamp, when all have one size, or are compressed.
const FEW: usize = 64;
/// Different messages when sizes differ: shares come out to 0.012 %.
const MANY: usize = 8192;
const DEFLATE_LEVEL: u8 = 6;
/// Header and lengths of a DEFLATE block that is not compressed: it holds the stamp.
const STORED_BYTES: usize = 5;
/// The code of every request.
const MSG: u32 = 42;
/// Of a header of iproto: what comes before the sync, which every message has its own of.
const FIXED_BYTES: usize = 8;
/// 24 bits of connection and message number are four characters each.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Text,
    Binary,
    /// Text, compressed.
    Deflate,
    /// Packets that have to come back in their order.
    Iproto,
    /// No frames at all.
    Tcp,
}

pub(crate) struct Script {
    pub(crate) format: Format,
    plain: Vec<u8>,
    masked: Vec<u8>,
    entries: Vec<Entry>,
}

/// One of the messages, but for its stamp.
pub(crate) struct Entry {
    pub(crate) size: usize,
    /// Where its piece of the text begins.
    at: usize,
    request: [u8; HEADER_BYTES_MAX],
    request_len: u8,
    reply: [u8; HEADER_BYTES_MAX],
    reply_len: u8,
    /// The piece, compressed and masked.
    packed: Vec<u8>,
}

impl Entry {
    /// The header of the packet of this number.
    pub(crate) fn packet_header(&self, message: u64) -> iproto::Header {
        // A body has at most a gigabyte.
        iproto::Header { msg: MSG, len: self.size as u32, sync: sync(message) }
    }

    /// The header that an echo of it comes back with, usually; of iproto without the sync.
    #[inline]
    pub(crate) fn reply_header(&self) -> &[u8] {
        &self.reply[..usize::from(self.reply_len)]
    }

    /// How many bytes of the stamp it begins with.
    #[inline]
    pub(crate) fn stamp_len(&self) -> usize {
        self.size.min(STAMP_BYTES)
    }
}

/// A connection, as its messages show it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    characters: [u8; 4],
    /// Which of the messages is its first.
    first: usize,
}

impl Identity {
    pub(crate) fn new(number: u32) -> Self {
        Self { characters: characters(u64::from(number)), first: number as usize * 37 }
    }

    /// The characters of connection and message alternate, so that short messages differ too.
    #[inline]
    pub(crate) fn stamp(self, message: u64) -> [u8; STAMP_BYTES] {
        let [a, b, c, d] = self.characters;
        let [e, f, g, h] = characters(message);
        [a, e, b, f, c, g, d, h]
    }
}

/// What a packet is called: never 0, which wants no answer.
#[inline]
pub(crate) fn sync(message: u64) -> u32 {
    1 + (message % u64::from(u32::MAX)) as u32
}

#[inline]
fn characters(number: u64) -> [u8; 4] {
    [0, 6, 12, 18].map(|shift| ALPHABET[(number >> shift) as usize % ALPHABET.len()])
}

impl Script {
    pub(crate) fn new(format: Format, sizes: &Sizes) -> Self {
        let few = format == Format::Deflate || matches!(sizes, Sizes::Fixed(_));
        let table = sizes.table(if few { FEW } else { MANY });
        let plain = documents(1, sizes.max() + SPREAD_BYTES).swap_remove(0);
        let mut masked = plain.clone();
        mask(&mut masked, KEY, 0);
        let mut script = Self { format, plain, masked, entries: Vec::new() };
        let mut deflater =
            (format == Format::Deflate).then(|| Deflater::new(DEFLATE_LEVEL, WINDOW_BITS_MAX));
        script.entries = (table.into_iter().enumerate())
            .map(|(index, size)| script.entry_of(index, size, deflater.as_mut()))
            .collect();
        script
    }

    fn entry_of(&self, index: usize, size: usize, deflater: Option<&mut Deflater>) -> Entry {
        // A multiple of four, as the masked copy is masked from its first byte on.
        let at = index * 52 % SPREAD_BYTES;
        let stamp_len = size.min(STAMP_BYTES);
        let packed = deflater.map_or_else(Vec::new, |deflater| {
            let mut packed = compress(deflater, &self.plain[at..][..size - stamp_len]);
            mask(&mut packed, KEY, STORED_BYTES + stamp_len);
            packed
        });
        let opcode = if self.format == Format::Binary { Opcode::Binary } else { Opcode::Text };
        let (mut request, mut reply) = ([0; HEADER_BYTES_MAX], [0; HEADER_BYTES_MAX]);
        let (mut request_len, mut reply_len) = (0, 0);
        if self.format == Format::Iproto {
            let header = iproto::Header { msg: MSG, len: size as u32, sync: 0 }.encode();
            for fixed in [&mut request, &mut reply] {
                fixed[..FIXED_BYTES].copy_from_slice(&header[..FIXED_BYTES]);
            }
            (request_len, reply_len) = (FIXED_BYTES as u8, FIXED_BYTES as u8);
        } else if self.format != Format::Tcp {
            let compressed = self.format == Format::Deflate;
            let sent = if compressed { STORED_BYTES + stamp_len + packed.len() } else { size };
            let mut header = Header::new(true, opcode, Some(KEY), sent as u64);
            header.rsv1 = compressed;
            request_len = header.encode(&mut request) as u8;
            reply_len = Header::new(true, opcode, None, size as u64).encode(&mut reply) as u8;
        }
        Entry { size, at, request, request_len, reply, reply_len, packed }
    }

    /// The message of this number, but for its stamp.
    #[inline]
    pub(crate) fn entry(&self, identity: Identity, message: u64) -> &Entry {
        // The number of entries is a power of two: no division.
        &self.entries[(identity.first.wrapping_add(message as usize)) & (self.entries.len() - 1)]
    }

    /// Appends the message of this number as it goes over the wire.
    #[inline]
    pub(crate) fn push(&self, out: &mut Vec<u8>, identity: Identity, message: u64) {
        let entry = self.entry(identity, message);
        let stamp_len = entry.stamp_len();
        let mut stamp = identity.stamp(message);
        out.extend_from_slice(&entry.request[..usize::from(entry.request_len)]);
        match self.format {
            Format::Text | Format::Binary => {
                mask(&mut stamp, KEY, 0);
                out.extend_from_slice(&stamp[..stamp_len]);
                out.extend_from_slice(&self.masked[entry.at..][..entry.size - stamp_len]);
            }
            Format::Tcp | Format::Iproto => {
                if self.format == Format::Iproto {
                    out.extend_from_slice(&sync(message).to_le_bytes());
                }
                out.extend_from_slice(&stamp[..stamp_len]);
                out.extend_from_slice(&self.plain[entry.at..][..entry.size - stamp_len]);
            }
            Format::Deflate => {
                let len = stamp_len as u8; // at most eight
                let start = out.len();
                out.extend_from_slice(&[0, len, 0, !len, 0xff]);
                out.extend_from_slice(&stamp[..stamp_len]);
                mask(&mut out[start..], KEY, 0);
                out.extend_from_slice(&entry.packed);
            }
        }
    }

    /// What the message of this number says from `offset` on, in two parts.
    #[inline]
    pub(crate) fn expected<'a>(
        &'a self,
        entry: &Entry,
        stamp: &'a [u8; STAMP_BYTES],
        offset: usize,
    ) -> (&'a [u8], &'a [u8]) {
        let stamp_len = entry.stamp_len();
        let body = &self.plain[entry.at..][..entry.size - stamp_len];
        (&stamp[offset.min(stamp_len)..stamp_len], &body[offset.saturating_sub(stamp_len)..])
    }

    /// The longest stretch that a piece can refer back over, for a server that limits the window.
    pub(crate) fn reach(&self) -> usize {
        self.entries.iter().map(|entry| entry.size - entry.stamp_len()).max().unwrap_or(0)
    }
}

fn compress(deflater: &mut Deflater, piece: &[u8]) -> Vec<u8> {
    let mut packed = vec![0; piece.len() + piece.len() / 8 + 64];
    let len = deflater.message(piece, false, &mut packed).expect("there is room to spare");
    packed.truncate(len);
    packed
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use hioload_protocol::deflate::Inflater;
    use hioload_protocol::iproto;
    use hioload_protocol::ws::{Connection, Env, Event, HeapMemory, Limits, Role};
    use rstest::rstest;

    use super::{Format, Identity, Script};

    /// What a server reads.
    fn read(script: &Script, identity: Identity, message: u64) -> Vec<u8> {
        let mut wire = Vec::new();
        script.push(&mut wire, identity, message);
        if script.format == Format::Tcp {
            return wire;
        }
        if script.format == Format::Iproto {
            let header = iproto::Header::decode(wire.first_chunk().unwrap());
            assert_eq!(header.len as usize, wire.len() - iproto::HEADER_BYTES);
            assert_eq!(header, script.entry(identity, message).packet_header(message));
            return wire.split_off(iproto::HEADER_BYTES);
        }
        let mut connection = Connection::new(Role::Server).with_deflate();
        let mut env = Env { limits: &Limits::default(), memory: &mut HeapMemory, now_ms: 0 };
        let event = connection.read(&mut wire, &mut 0, &mut env).unwrap();
        let Some(Event::Message(message)) = event else { panic!("{event:?} is no message") };
        let payload = message.body.bytes(&wire);
        if !message.compressed {
            return payload.to_vec();
        }
        let (mut plain, len) = Inflater::new().message(payload, false, &mut env).unwrap();
        plain.truncate(len);
        plain
    }

    #[rstest]
    fn a_server_reads_what_is_expected_back(
        #[values(Format::Text, Format::Binary, Format::Deflate, Format::Iproto, Format::Tcp)]
        format: Format,
        #[values("1", "7", "8", "9", "20", "125", "126", "65535", "65536", "0-300")] sizes: &str,
    ) {
        let script = Script::new(format, &sizes.parse().unwrap());
        for message in [0, 1, 2, 63, 64, 5_000_000_000] {
            let identity = Identity::new(message as u32 % 7);
            let (entry, stamp) = (script.entry(identity, message), identity.stamp(message));
            let (begin, rest) = script.expected(entry, &stamp, 0);
            assert_eq!(read(&script, identity, message), [begin, rest].concat());
            assert_eq!(begin.len() + rest.len(), entry.size);
        }
    }

    #[test]
    fn every_message_of_every_connection_is_different() {
        let script = Script::new(Format::Text, &"8".parse().unwrap());
        let mut seen = HashSet::new();
        for connection in 0..100 {
            for message in 0..200 {
                assert!(seen.insert(read(&script, Identity::new(connection), message)));
            }
        }
    }
}
