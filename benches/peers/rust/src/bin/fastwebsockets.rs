//! WebSocket echo on fastwebsockets, upgraded by hyper.
//!
//! It writes every frame by itself: the crate has no way to collect them.

use std::io;

use fastwebsockets::upgrade::{UpgradeFut, upgrade};
use fastwebsockets::{FragmentCollector, OpCode, WebSocketError};
use hioload_benches_peers::tasks::{End, serve};
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::unconstrained;

fn main() -> io::Result<()> {
    serve(connection)
}

async fn connection(stream: TcpStream) -> End {
    let http = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer));
    Ok(http.with_upgrades().await?)
}

async fn answer(mut request: Request<Incoming>) -> Result<Response<Empty<Bytes>>, WebSocketError> {
    let (response, upgraded) = upgrade(&mut request)?;
    tokio::spawn(async { drop(unconstrained(echo(upgraded)).await) });
    Ok(response)
}

async fn echo(upgraded: UpgradeFut) -> Result<(), WebSocketError> {
    let mut connection = FragmentCollector::new(upgraded.await?);
    loop {
        let frame = connection.read_frame().await?;
        match frame.opcode {
            OpCode::Close => return Ok(()),
            OpCode::Text | OpCode::Binary => connection.write_frame(frame).await?,
            _ => {}
        }
    }
}
