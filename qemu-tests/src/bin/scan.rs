//! Tries every TCP port of an address: `scan ADDRESS`. Prints those that are open, one a line.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Connections that are tried at once.
const THREADS: usize = 64;
/// A port that says nothing for so long is filtered: it is printed too, as it may be something.
const SILENCE: Duration = Duration::from_secs(30);

fn main() {
    let address: Ipv4Addr =
        std::env::args().nth(1).expect("usage: scan ADDRESS").parse().expect("an IPv4 address");
    let next = AtomicU32::new(1);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Ok(port) = u16::try_from(next.fetch_add(1, Ordering::Relaxed)) {
                    let tried = TcpStream::connect_timeout(&SocketAddr::from((address, port)), SILENCE);
                    match tried {
                        Ok(_) => println!("{port}"),
                        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {}
                        Err(error) => println!("{port} {error}"),
                    }
                }
            });
        }
    });
}
