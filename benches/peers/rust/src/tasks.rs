//! A task per connection on one thread of tokio.

use std::error::Error;
use std::io;

use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;

/// Why a connection ended.
pub type End = Result<(), Box<dyn Error + Send + Sync>>;

/// Serves for ever.
pub fn serve<F>(connection: impl Fn(TcpStream) -> F) -> io::Result<()>
where
    F: Future<Output = End> + Send + 'static,
{
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::from_std(crate::listen()?)?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let connection = connection(stream);
            // A peer that goes away ends its connection, which is no news.
            tokio::spawn(async { drop(connection.await) });
        }
    })
}
