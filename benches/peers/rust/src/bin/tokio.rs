//! Raw echo on tokio.

use std::io;

use hioload_benches_peers::READ_BYTES;
use hioload_benches_peers::tasks::{End, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn main() -> io::Result<()> {
    serve(connection)
}

async fn connection(mut stream: TcpStream) -> End {
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let len = stream.read(&mut buffer).await?;
        if len == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..len]).await?;
    }
}
