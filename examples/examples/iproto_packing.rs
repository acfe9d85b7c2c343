//! What the bodies of iproto packets are made of: values, their bytes, and back.
//!
//! `cargo run --example iproto_packing` prints them.

use std::error::Error;

use clap::Parser;
use hioload::iproto::{Pack, Unpack, append_packet, pack, pack_ber, unpack, unpack_ber};

/// Prints values and their packed forms.
#[derive(Parser)]
#[command(name = "iproto_packing", version)]
struct Flags {}

/// Fields in their order; integers little-endian, unless they are marked.
#[derive(Debug, PartialEq, Pack, Unpack)]
struct Order<'a> {
    id: u64,
    #[iproto(ber)]
    count: u32, // as Perl's `pack 'w'`: one byte below 128
    customer: &'a str, // borrowed from the body that it is unpacked from
    lines: Vec<Line>,
}

#[derive(Debug, PartialEq, Pack, Unpack)]
struct Line {
    article: u16,
    price_cents: i32,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn main() -> Result<(), Box<dyn Error>> {
    let Flags {} = Flags::parse();
    println!("u32 258          {}", hex(&pack(&258_u32)?));
    println!("u32 258, BER     {}", hex(&pack_ber(&258_u32)?));
    println!("\"hello\"          {}", hex(&pack("hello")?));
    println!("[1, 300]         {}", hex(&pack(&vec![1_u32, 300])?));

    let lines = vec![Line { article: 7, price_cents: 1999 }];
    let order = Order { id: 1, count: 300, customer: "Ada", lines };
    let body = pack(&order)?;
    println!("an order         {}", hex(&body));
    assert_eq!(unpack::<Order>(&body)?, order);

    let mut packet = Vec::new();
    append_packet(&mut packet, 42, 1, &body)?;
    println!("with its header  {}", hex(&packet));

    // Nothing is cut off in silence.
    if let Err(error) = unpack::<Order>(&body[..20]) {
        println!("20 bytes of it   {error}");
    }
    if let Err(error) = unpack_ber::<u16>(&pack_ber(&100_000_u32)?) {
        println!("100000 as u16    {error}");
    }
    Ok(())
}
