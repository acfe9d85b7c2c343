//! What every client sends: frames made beforehand, and how the replies are read back.

use clap::ValueEnum;
use hioload_protocol::ws::Opcode;
use hioload_protocol::ws::frame::Header;
use hioload_protocol::ws::mask::mask;
use zlib_rs::{Deflate, DeflateFlush, Inflate, InflateFlush};

/// The level of every compressor here: what all of the servers have by default or are told.
pub(crate) const LEVEL: i32 = 6;
const WINDOW_BITS: u8 = 15;
/// What RFC 7692 takes from the end of every message, and the receiver puts back.
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];
const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// What is negotiated.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Mode {
    /// Compressed, every message by itself: no_context_takeover for both sides
    NoContext,
    /// Compressed, a 32 KiB window in both directions that lives as long as the connection
    Takeover,
    /// Not compressed, for reference
    Plain,
}

impl Mode {
    /// As it is called on the command lines of the servers too.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::NoContext => "no-context",
            Self::Takeover => "takeover",
            Self::Plain => "plain",
        }
    }

    /// What the client asks for, if anything.
    pub(crate) fn offer(self) -> Option<&'static str> {
        match self {
            Self::NoContext => {
                Some("permessage-deflate; server_no_context_takeover; client_no_context_takeover")
            }
            Self::Takeover => Some("permessage-deflate"),
            Self::Plain => None,
        }
    }

    /// Whether what the server answered is what is to be measured, and if not, why.
    pub(crate) fn check(self, answer: Option<&str>) -> Result<(), String> {
        let Some(offer) = self.offer() else {
            return answer
                .map_or(Ok(()), |answer| Err(format!("it answered {answer:?} to nothing")));
        };
        let answer = answer.ok_or_else(|| format!("it turned {offer:?} down"))?;
        let words: Vec<_> = answer.split([';', ',']).map(str::trim).collect();
        let no_context = words.contains(&"server_no_context_takeover");
        let small = words.iter().any(|word| {
            word.split_once('=').is_some_and(|(_, bits)| bits.trim_matches('"') != "15")
        });
        let fits = words[0] == "permessage-deflate"
            && no_context == (self == Self::NoContext)
            && (self == Self::NoContext || !words.contains(&"client_no_context_takeover"))
            && !small;
        if fits { Ok(()) } else { Err(format!("it answered {offer:?} with {answer:?}")) }
    }
}

/// The frames of a client, in the order in which it sends them, for ever.
///
/// With takeover the first lap over the documents is compressed into an empty window, and the
/// second into one full of the first. All later laps repeat the second: what it points back to is
/// within the 32 KiB before it, and those are the same bytes in every lap, as one lap is longer.
pub(crate) struct Script {
    pub(crate) mode: Mode,
    pub(crate) documents: Vec<Vec<u8>>,
    frames: Vec<Vec<u8>>,
    lap_from: usize,
}

impl Script {
    pub(crate) fn new(mode: Mode, documents: Vec<Vec<u8>>) -> Self {
        let laps = if mode == Mode::Takeover { 2 } else { 1 };
        let lap_bytes: usize = documents.iter().map(Vec::len).sum();
        assert!(lap_bytes > 1 << WINDOW_BITS, "a lap is longer than the window");
        let mut deflate = Deflate::new(LEVEL, false, WINDOW_BITS);
        let mut frames = Vec::new();
        for document in (0..laps).flat_map(|_| &documents) {
            frames.push(match mode {
                Mode::Plain => frame(document, false),
                Mode::NoContext => {
                    deflate.reset();
                    frame(&compress(&mut deflate, document), true)
                }
                Mode::Takeover => frame(&compress(&mut deflate, document), true),
            });
        }
        let lap_from = frames.len() - documents.len();
        Self { mode, documents, frames, lap_from }
    }

    /// The frame that a connection sends as its message number `index`.
    pub(crate) fn frame(&self, index: usize) -> &[u8] {
        match self.frames.get(index) {
            Some(frame) => frame,
            None => &self.frames[self.lap_from + (index % self.documents.len())],
        }
    }

    /// Which document that is.
    pub(crate) fn document(&self, index: usize) -> usize {
        index % self.documents.len()
    }
}

fn compress(deflate: &mut Deflate, plain: &[u8]) -> Vec<u8> {
    let mut packed = vec![0; plain.len() + 64];
    let before = deflate.total_out();
    deflate.compress(plain, &mut packed, DeflateFlush::SyncFlush).expect("the stream is sound");
    packed.truncate((deflate.total_out() - before) as usize);
    assert!(packed.ends_with(&TAIL), "there was room for all of it");
    packed.truncate(packed.len() - TAIL.len());
    packed
}

fn frame(payload: &[u8], compressed: bool) -> Vec<u8> {
    let mut header = [0; 14];
    let header_len =
        Header::new(true, Opcode::Text, Some(KEY), payload.len() as u64).encode(&mut header);
    let mut frame = header[..header_len].to_vec();
    if compressed {
        frame[0] |= 0x40; // RSV1
    }
    frame.extend_from_slice(payload);
    mask(&mut frame[header_len..], KEY, 0);
    frame
}

/// Reads compressed replies.
pub(crate) struct Reader {
    inflate: Inflate,
    packed: Vec<u8>,
    plain: Vec<u8>,
}

impl Reader {
    pub(crate) fn new() -> Self {
        let inflate = Inflate::new(false, WINDOW_BITS);
        Self { inflate, packed: Vec::new(), plain: Vec::new() }
    }

    /// Whether this reply, after those before it, says `expected`.
    pub(crate) fn says(&mut self, payload: &[u8], expected: &[u8], keep_window: bool) -> bool {
        if !keep_window {
            self.inflate.reset(false);
        }
        self.packed.clear();
        self.packed.extend_from_slice(payload);
        self.packed.extend_from_slice(&TAIL);
        self.plain.resize(expected.len() + 1, 0);
        let before = self.inflate.total_out();
        let done = self.inflate.decompress(&self.packed, &mut self.plain, InflateFlush::SyncFlush);
        let len = (self.inflate.total_out() - before) as usize;
        done.is_ok() && self.plain[..len] == *expected
    }
}

#[cfg(test)]
mod tests {
    use super::{Mode, Reader, Script, mask};
    use hioload_benches::documents::documents;

    #[test]
    fn every_lap_reads_back() {
        for mode in [Mode::NoContext, Mode::Takeover] {
            let script = Script::new(mode, documents(64, 1024));
            let mut reader = Reader::new();
            for index in 0..64 * 5 {
                let mut payload = script.frame(index)[8..].to_vec();
                mask(&mut payload, super::KEY, 0);
                let expected = &script.documents[script.document(index)];
                let keep_window = mode == Mode::Takeover;
                assert!(reader.says(&payload, expected, keep_window), "{mode:?}, {index}");
            }
        }
    }

    #[test]
    fn only_what_was_asked_for_is_measured() {
        let none = "permessage-deflate; client_no_context_takeover; server_no_context_takeover";
        assert_eq!(Mode::NoContext.check(Some(none)), Ok(()));
        assert_eq!(Mode::Takeover.check(Some("permessage-deflate")), Ok(()));
        assert_eq!(Mode::Plain.check(None), Ok(()));
        assert!(Mode::NoContext.check(Some("permessage-deflate")).is_err());
        assert!(Mode::Takeover.check(Some(none)).is_err());
        assert!(
            Mode::Takeover.check(Some("permessage-deflate; server_max_window_bits=10")).is_err()
        );
        assert!(Mode::NoContext.check(None).is_err());
        assert!(Mode::Plain.check(Some("permessage-deflate")).is_err());
    }
}
