//! Raw echo on monoio, on io_uring.

use std::io;

use hioload_benches_peers::{READ_BYTES, listen};
use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::{TcpListener, TcpStream};
use monoio::{IoUringDriver, RuntimeBuilder};

fn main() -> io::Result<()> {
    RuntimeBuilder::<IoUringDriver>::new().build()?.block_on(async {
        let listener = TcpListener::from_std(listen()?)?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            // A peer that goes away ends its connection, which is no news.
            monoio::spawn(async { drop(connection(stream).await) });
        }
    })
}

async fn connection(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(READ_BYTES);
    loop {
        let (read, filled) = stream.read(buffer).await;
        if read? == 0 {
            return Ok(());
        }
        let (written, full) = stream.write_all(filled).await;
        written?;
        buffer = full;
        buffer.clear();
    }
}
