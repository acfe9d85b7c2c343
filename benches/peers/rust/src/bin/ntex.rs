//! WebSocket echo on ntex, with its own runtime on io_uring.

use std::io;

use ntex::service::{fn_factory_with_config, fn_service};
use ntex::util::ByteString;
use ntex::web::{self, App, HttpRequest, HttpServer, ws};

use hioload_benches_peers::listen;

#[ntex::main]
async fn main() -> io::Result<()> {
    HttpServer::new(async || App::new().service(web::resource("/").route(web::to(upgrade))))
        .workers(1)
        .listen(listen()?)?
        .run()
        .await
}

async fn upgrade(request: HttpRequest) -> Result<web::HttpResponse, web::Error> {
    let echo = fn_factory_with_config(async |_| Ok::<_, web::Error>(fn_service(echo)));
    ws::start(request, None::<&str>, echo).await
}

async fn echo(frame: ws::Frame) -> Result<Option<ws::Message>, io::Error> {
    Ok(match frame {
        ws::Frame::Text(text) => Some(ws::Message::Text(
            ByteString::try_from(text).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?,
        )),
        ws::Frame::Binary(bytes) => Some(ws::Message::Binary(bytes)),
        ws::Frame::Ping(bytes) => Some(ws::Message::Pong(bytes)),
        ws::Frame::Close(reason) => Some(ws::Message::Close(reason)),
        ws::Frame::Pong(_) | ws::Frame::Continuation(_) => None,
    })
}
