//! WebSocket echo on tokio-tungstenite.

use std::io;

use hioload_benches_peers::streams::echo;
use hioload_benches_peers::tasks::serve;
use tokio_tungstenite::accept_async;
use tokio_tungstenite::tungstenite::Message;

fn main() -> io::Result<()> {
    serve(async |stream| {
        let connection = accept_async(stream).await?;
        echo(connection, |message: &Message| message.is_text() || message.is_binary()).await
    })
}
