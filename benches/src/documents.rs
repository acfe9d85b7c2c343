//! JSON that looks like what servers send, the same in every run.

const SYMBOLS: [&str; 10] =
    ["EURUSD", "GBPJPY", "AAPL", "MSFT", "BTC-USD", "ETH-EUR", "XAUUSD", "NFLX", "TSLA", "CL-2027"];
const SIDES: [&str; 2] = ["buy", "sell"];
const VENUES: [&str; 5] = ["XNYS", "XLON", "XETR", "CBOE", "IEXG"];
const WORDS: [&str; 26] = [
    "limit", "order", "partial", "fill", "of", "the", "morning", "session", "client", "wants",
    "to", "be", "told", "when", "price", "moves", "again", "until", "close", "hedge", "risk",
    "approved", "by", "desk", "before", "noon",
];

/// What follows the last record: the name of the note, and the end of the document.
const TAIL_BYTES: usize = 32;

/// SplitMix64: small, and good enough to make documents differ.
#[derive(Clone, Debug)]
pub struct Numbers(pub u64);

impl Numbers {
    /// The next number, less than `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % limit
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len() as u64) as usize]
    }
}

/// `count` different documents of exactly `bytes` bytes each (at least 128).
#[must_use]
pub fn documents(count: usize, bytes: usize) -> Vec<Vec<u8>> {
    let mut numbers = Numbers(42 + bytes as u64);
    (0..count).map(|_| document(bytes, &mut numbers)).collect()
}

fn document(bytes: usize, numbers: &mut Numbers) -> Vec<u8> {
    let mut text = format!(
        r#"{{"type":"update","channel":"orders.{}","sequence":{},"orders":["#,
        numbers.below(40),
        numbers.below(100_000_000),
    );
    let mut separator = "";
    loop {
        let record = record(numbers);
        if text.len() + record.len() + TAIL_BYTES > bytes {
            break;
        }
        text.push_str(separator);
        text.push_str(&record);
        separator = ",";
    }
    text.push_str(r#"],"note":""#);
    while text.len() + 2 < bytes {
        text.push_str(numbers.pick(&WORDS));
        text.push(' ');
    }
    text.truncate(bytes - 2);
    text.push_str("\"}");
    text.into_bytes()
}

fn record(numbers: &mut Numbers) -> String {
    format!(
        r#"{{"id":{},"symbol":"{}","side":"{}","price":{}.{:04},"quantity":{},"venue":"{}","time":"2026-11-{:02}T{:02}:{:02}:{:02}.{:03}Z","flags":[{},{}],"ok":{}}}"#,
        10_000_000 + numbers.below(90_000_000),
        numbers.pick(&SYMBOLS),
        numbers.pick(&SIDES),
        numbers.below(5000),
        numbers.below(10_000),
        numbers.below(1000) * 10,
        numbers.pick(&VENUES),
        1 + numbers.below(30),
        numbers.below(24),
        numbers.below(60),
        numbers.below(60),
        numbers.below(1000),
        numbers.below(8),
        numbers.below(64),
        numbers.below(2) == 0,
    )
}

#[cfg(test)]
mod tests {
    use super::documents;

    #[test]
    fn documents_have_their_size_and_differ() {
        for bytes in [128, 1024, 4096] {
            let made = documents(64, bytes);
            assert!(made.iter().all(|document| document.len() == bytes));
            assert!((1..64).all(|index| made[index] != made[index - 1]));
            assert_eq!(made, documents(64, bytes), "the same in every run");
        }
    }
}
