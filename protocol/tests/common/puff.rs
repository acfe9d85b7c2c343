//! A reference model of what a receiver must make of compressed payloads: DEFLATE (RFC 1951) read
//! bit by bit in the plainest way, with a window of exactly the agreed size.
//!
//! The library's own window has 32 KiB whatever it is told, so it cannot show that a sender keeps
//! to a smaller one.

#![allow(dead_code, unreachable_pub)] // each test binary uses its own part

use hioload_protocol::ws::Violation;

const TAIL: [u8; 4] = [0x00, 0x00, 0xFF, 0xFF];

/// Why a payload is not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not DEFLATE, or refers back further than the window reaches.
    Bad,
    /// It does not end where a payload ends.
    Cut,
    /// The message has more bytes than the limit.
    TooBig,
    /// Its final blocks cause more copying than it may.
    Flood,
}

/// The receiver of one direction of a connection.
#[derive(Clone)]
pub struct Puff {
    window_bytes: usize,
    /// What came in earlier messages, the end of it.
    history: Vec<u8>,
    /// How far back the farthest reference went.
    pub farthest: usize,
}

impl Puff {
    pub fn new(window_bits: u8) -> Self {
        Self { window_bytes: 1 << window_bits, history: Vec::new(), farthest: 0 }
    }

    /// What our inflater must say, if it said `got`: of a payload that is too big and broken as
    /// well it may say either, as the library sees more than the first byte too many.
    pub fn expected(
        &mut self,
        payload: &[u8],
        keeps_context: bool,
        limit: usize,
        got: &Result<Vec<u8>, Violation>,
    ) -> Result<Vec<u8>, Violation> {
        let mut unlimited = self.clone();
        self.message(payload, keeps_context, limit).map_err(|fault| match fault {
            Fault::Bad | Fault::Cut => Violation::NotDeflate,
            Fault::Flood => Violation::OverheadExhausted,
            Fault::TooBig if *got == Err(Violation::NotDeflate) => {
                match unlimited.message(payload, keeps_context, usize::MAX) {
                    Err(Fault::Bad | Fault::Cut) => Violation::NotDeflate,
                    _ => Violation::MessageTooBig,
                }
            }
            Fault::TooBig => Violation::MessageTooBig,
        })
    }

    /// The message of a payload, if it has at most `limit` bytes.
    pub fn message(
        &mut self,
        payload: &[u8],
        keeps_context: bool,
        limit: usize,
    ) -> Result<Vec<u8>, Fault> {
        if !keeps_context {
            self.history.clear();
        }
        if payload.is_empty() {
            return Ok(Vec::new());
        }
        let bytes = [payload, &TAIL].concat();
        let before = self.history.len();
        let mut reader = Reader {
            bytes: &bytes,
            at: 0,
            end: payload.len() * 8,
            out: std::mem::take(&mut self.history),
            before,
            reach_from: 0,
            limit,
            restored: 0,
            window_bytes: self.window_bytes,
            farthest: self.farthest,
        };
        reader.blocks()?;
        self.farthest = reader.farthest;
        let message = reader.out[before..].to_vec();
        self.history = reader.out.split_off(reader.reach_from);
        let kept = self.history.len().saturating_sub(self.window_bytes);
        self.history.drain(..kept);
        Ok(message)
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    /// In bits, as `end` is, where the payload ends and what was put back begins.
    at: usize,
    end: usize,
    /// What came before, and the message behind it.
    out: Vec<u8>,
    before: usize,
    /// References may not reach before this.
    reach_from: usize,
    limit: usize,
    /// How many bytes of windows an inflater copies for the final blocks so far.
    restored: usize,
    window_bytes: usize,
    farthest: usize,
}

/// How many codes have each length, and the symbols in the order of their codes.
struct Huffman {
    counts: [u16; 16],
    symbols: Vec<u16>,
}

impl Huffman {
    /// `left`: more codes than there may be if negative, fewer if positive.
    fn new(lengths: &[u8]) -> (Self, i32) {
        let mut counts = [0_u16; 16];
        lengths.iter().for_each(|len| counts[usize::from(*len)] += 1);
        let mut symbols = Vec::new();
        for wanted in 1..16 {
            let coded = lengths.iter().enumerate().filter(|(_, len)| **len == wanted);
            symbols.extend(coded.map(|(symbol, _)| symbol as u16));
        }
        let left = match symbols.is_empty() {
            true => 0,
            false => counts[1..].iter().fold(1, |left, count| (left << 1) - i32::from(*count)),
        };
        (Self { counts, symbols }, left)
    }

    /// Whether it is only one code of one bit, which may be incomplete.
    fn is_single(&self) -> bool {
        self.symbols.len() == usize::from(self.counts[1])
    }
}

const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

impl Reader<'_> {
    fn bits(&mut self, count: usize) -> Result<usize, Fault> {
        let mut value = 0;
        for bit in 0..count {
            let byte = *self.bytes.get(self.at / 8).ok_or(Fault::Cut)?;
            value |= usize::from(byte >> (self.at % 8) & 1) << bit;
            self.at += 1;
        }
        Ok(value)
    }

    fn blocks(&mut self) -> Result<(), Fault> {
        loop {
            let last = self.bits(1)? == 1;
            match self.bits(2)? {
                0 => {
                    self.at = self.at.next_multiple_of(8);
                    let is_end = self.at == self.end;
                    self.stored()?;
                    if is_end {
                        if last {
                            self.forget()?;
                        }
                        return Ok(());
                    }
                }
                1 => {
                    let lengths = [[8; 144].as_slice(), &[9; 112], &[7; 24], &[8; 8]].concat();
                    self.coded(&Huffman::new(&lengths).0, &Huffman::new(&[5; 30]).0)?;
                }
                2 => {
                    let (lengths, distances) = self.tables()?;
                    self.coded(&lengths, &distances)?;
                }
                _ => return Err(Fault::Bad),
            }
            if self.at > self.end {
                return Err(Fault::Cut);
            }
            if last {
                self.at = self.at.next_multiple_of(8);
                self.forget()?;
                if self.at == self.end {
                    return Ok(());
                }
            }
        }
    }

    /// What a final block does to earlier messages: see `Inflater::message`.
    fn forget(&mut self) -> Result<(), Fault> {
        self.reach_from = self.before;
        let message = self.out.len() - self.before;
        self.restored += message.min(32 * 1024);
        let data = self.end / 8 + message;
        if self.restored > 1024 * 1024 + 16 * data { Err(Fault::Flood) } else { Ok(()) }
    }

    fn stored(&mut self) -> Result<(), Fault> {
        let (len, complement) = (self.bits(16)?, self.bits(16)?);
        if len != !complement & 0xFFFF {
            return Err(Fault::Bad);
        }
        (0..len).try_for_each(|_| {
            let byte = self.bits(8)?;
            self.push(byte as u8)
        })
    }

    fn push(&mut self, byte: u8) -> Result<(), Fault> {
        if self.at > self.end {
            return Err(Fault::Cut);
        }
        if self.out.len() - self.before == self.limit {
            return Err(Fault::TooBig);
        }
        self.out.push(byte);
        Ok(())
    }

    fn symbol(&mut self, huffman: &Huffman) -> Result<usize, Fault> {
        let (mut code, mut first, mut index) = (0, 0, 0);
        for count in huffman.counts[1..].iter().map(|count| usize::from(*count)) {
            code |= self.bits(1)?;
            if code < first + count {
                return Ok(usize::from(huffman.symbols[index + code - first]));
            }
            index += count;
            first = (first + count) << 1;
            code <<= 1;
        }
        Err(Fault::Bad)
    }

    fn coded(&mut self, lengths: &Huffman, distances: &Huffman) -> Result<(), Fault> {
        loop {
            let symbol = self.symbol(lengths)?;
            let len = match symbol {
                0..=255 => {
                    self.push(symbol as u8)?;
                    continue;
                }
                256 => return Ok(()),
                257..=264 => symbol - 254,
                265..=284 => {
                    let extra = (symbol - 261) / 4;
                    ((4 + (symbol - 261) % 4) << extra) + 3 + self.bits(extra)?
                }
                285 => 258,
                _ => return Err(Fault::Bad),
            };
            let distance = match self.symbol(distances)? {
                symbol @ 0..=3 => symbol + 1,
                symbol @ 4..=29 => {
                    let extra = symbol / 2 - 1;
                    ((2 + symbol % 2) << extra) + 1 + self.bits(extra)?
                }
                _ => return Err(Fault::Bad),
            };
            if distance > self.window_bytes || distance > self.out.len() - self.reach_from {
                return Err(Fault::Bad);
            }
            self.farthest = self.farthest.max(distance);
            for _ in 0..len {
                self.push(self.out[self.out.len() - distance])?;
            }
        }
    }

    fn tables(&mut self) -> Result<(Huffman, Huffman), Fault> {
        let (lengths, distances) = (self.bits(5)? + 257, self.bits(5)? + 1);
        let codes = self.bits(4)? + 4;
        if lengths > 286 || distances > 30 {
            return Err(Fault::Bad);
        }
        let mut code_lengths = [0; 19];
        for at in &ORDER[..codes] {
            code_lengths[*at] = self.bits(3)? as u8;
        }
        let (code, left) = Huffman::new(&code_lengths);
        if left != 0 || code.symbols.is_empty() {
            return Err(Fault::Bad);
        }
        let mut all: Vec<u8> = Vec::new();
        while all.len() < lengths + distances {
            let (len, times) = match self.symbol(&code)? {
                16 => (*all.last().ok_or(Fault::Bad)?, 3 + self.bits(2)?),
                17 => (0, 3 + self.bits(3)?),
                18 => (0, 11 + self.bits(7)?),
                len => (len as u8, 1),
            };
            all.resize(all.len() + times, len);
        }
        if all.len() > lengths + distances || all[256] == 0 {
            return Err(Fault::Bad);
        }
        let check = |(huffman, left): (Huffman, i32)| match left {
            0 => Ok(huffman),
            1.. if huffman.is_single() => Ok(huffman),
            _ => Err(Fault::Bad),
        };
        Ok((check(Huffman::new(&all[..lengths]))?, check(Huffman::new(&all[lengths..]))?))
    }
}
