//! Raw echo on glommio.

use std::error::Error;
use std::io;

use futures_lite::{AsyncReadExt, AsyncWriteExt};
use glommio::net::{TcpListener, TcpStream};
use glommio::{LocalExecutorBuilder, Placement};
use hioload_benches_peers::{READ_BYTES, address};

fn main() -> Result<(), Box<dyn Error>> {
    // The core is the one that this process was started on.
    let executor = LocalExecutorBuilder::new(Placement::Unbound).make()?;
    executor.run(async {
        let listener = TcpListener::bind(address())?;
        loop {
            let stream = listener.accept().await?;
            stream.set_nodelay(true)?;
            // A peer that goes away ends its connection, which is no news.
            glommio::spawn_local(async { drop(connection(stream).await) }).detach();
        }
    })
}

async fn connection(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let len = stream.read(&mut buffer).await?;
        if len == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..len]).await?;
    }
}
