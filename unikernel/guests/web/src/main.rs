//! Serves a page over HTTP: TCP/IP in a guest.

#![cfg_attr(target_os = "solo5", no_std, no_main)]
#![forbid(unsafe_code)]

extern crate alloc;

mod http;
mod server;

use alloc::vec::Vec;
use core::convert::Infallible;
use core::net::Ipv4Addr;
use server::Server;
use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, Ipv4Cidr};
use solo5::args::{Command, Opt, Usage};
use solo5::ethernet::Ethernet;
use solo5::{Net, clock, entropy, println, yield_until};

solo5::manifest! { net "service" }
solo5::main!(run);

const PORT: u16 = 80;

static COMMAND: Command = Command {
    name: "web",
    about: "Serves a page over HTTP, on TCP port 80.",
    options: &[
        Opt {
            long: "ipv4",
            short: None,
            value: "CIDR",
            help: "Its address and network, like 10.0.0.2/24. Required.",
        },
        Opt { long: "ipv4-gateway", short: None, value: "ADDRESS", help: "The router to other networks." },
    ],
};

fn run() -> Result<Infallible, Usage> {
    let options = COMMAND.parse()?;
    let ipv4: solo5::args::Ipv4Cidr = options.required("ipv4")?;
    let gateway: Option<Ipv4Addr> = options.value("ipv4-gateway")?;
    let net =
        Net::acquire("service").ok_or_else(|| options.error("there is no network device \"service\""))?;

    let mac = EthernetAddress(net.mac());
    let mut device = Ethernet::new(net);
    let mut interface = interface(mac, &mut device);
    interface.update_ip_addrs(|addresses| {
        // The list is empty, and has room for more than one.
        let _ = addresses.push(Ipv4Cidr::new(ipv4.address(), ipv4.prefix_len()).into());
    });
    if let Some(gateway) = gateway {
        // As with the addresses.
        let _ = interface.routes_mut().add_default_ipv4_route(gateway);
    }
    device.announce(ipv4.address());
    println!("web: serving http://{}:{PORT}/ ({mac})", ipv4.address());
    serve(interface, device)
}

fn interface(mac: EthernetAddress, device: &mut Ethernet) -> Interface {
    let mut seed = [0; 8];
    entropy::fill(&mut seed);
    let mut config = Config::new(mac.into());
    config.random_seed = u64::from_ne_bytes(seed);
    Interface::new(config, device, instant(clock::monotonic_ns()))
}

/// The loop: move frames, answer, move frames, sleep until the next frame or deadline.
fn serve(mut interface: Interface, mut device: Ethernet) -> ! {
    let mut sockets = SocketSet::new(Vec::new());
    let mut server = Server::new(PORT, &mut sockets, clock::monotonic_ns());
    server.listen(&mut sockets);
    loop {
        let now_ns = clock::monotonic_ns();
        interface.poll(instant(now_ns), &mut device, &mut sockets);
        server.serve(&mut sockets, now_ns);
        interface.poll(instant(now_ns), &mut device, &mut sockets);
        server.listen(&mut sockets);
        let stack_ns = interface.poll_at(instant(now_ns), &sockets).map(nanoseconds);
        let deadline_ns = [stack_ns, server.deadline_ns()].into_iter().flatten().min();
        yield_until(deadline_ns.unwrap_or(u64::MAX));
    }
}

/// smoltcp's idea of a time on the monotonic clock; it counts microseconds.
fn instant(now_ns: u64) -> Instant {
    Instant::from_micros(i64::try_from(now_ns / 1_000).unwrap_or(i64::MAX))
}

fn nanoseconds(instant: Instant) -> u64 {
    u64::try_from(instant.total_micros()).unwrap_or(0).saturating_mul(1_000)
}
