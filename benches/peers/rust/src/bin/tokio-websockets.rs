//! WebSocket echo on tokio-websockets.

use std::io;

use hioload_benches_peers::streams::echo;
use hioload_benches_peers::tasks::serve;
use tokio_websockets::{Message, ServerBuilder};

fn main() -> io::Result<()> {
    serve(async |stream| {
        let (_, connection) = ServerBuilder::new().accept(stream).await?;
        echo(connection, |message: &Message| message.is_text() || message.is_binary()).await
    })
}
