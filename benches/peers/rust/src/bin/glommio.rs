//! Raw echo on glommio; with `spin` after the port it never sleeps.

use std::error::Error;
use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use futures_lite::{AsyncReadExt, AsyncWriteExt};
use glommio::net::{TcpListener, TcpStream};
use glommio::{LocalExecutorBuilder, Placement};
use hioload_benches_peers::{READ_BYTES, port_and};

const LONGER_THAN_A_RUN: Duration = Duration::from_secs(3600);

fn main() -> Result<(), Box<dyn Error>> {
    // The core is the one that this process was started on.
    let (port, spin) = port_and(Some("spin"));
    let mut builder = LocalExecutorBuilder::new(Placement::Unbound);
    if spin {
        builder = builder.spin_before_park(LONGER_THAN_A_RUN);
    }
    let executor = builder.make()?;
    executor.run(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
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
