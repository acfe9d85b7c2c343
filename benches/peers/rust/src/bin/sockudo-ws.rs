//! WebSocket echo on sockudo-ws.

use std::io;

use bytes::BytesMut;
use hioload_benches_peers::streams::echo;
use hioload_benches_peers::tasks::serve;
use sockudo_ws::handshake::{build_response, generate_accept_key, parse_request};
use sockudo_ws::protocol::Message;
use sockudo_ws::{Config, WebSocketStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn main() -> io::Result<()> {
    serve(async |mut stream: TcpStream| {
        accept(&mut stream).await?;
        let connection = WebSocketStream::server(stream, Config::default());
        echo(connection, |message| matches!(message, Message::Text(_) | Message::Binary(_))).await
    })
}

/// The handshake, as in the crate's own example: nothing follows it before it is answered.
async fn accept(stream: &mut TcpStream) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut input = BytesMut::with_capacity(4096);
    loop {
        if stream.read_buf(&mut input).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        if let Some((request, _)) = parse_request(&input)? {
            let answer = build_response(&generate_accept_key(request.key), None, None);
            return Ok(stream.write_all(&answer).await?);
        }
    }
}
