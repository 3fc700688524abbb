//! Bridges and their uplinks. The host has no address on either: only guests have.

use std::fs;
use std::os::fd::OwnedFd;
use std::thread::sleep;

use petrel_wire::sealed::{Bridge, Uplink};
use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};

use crate::limits::{DISK_LOOK, DISK_LOOKS};
use crate::modules::Modules;
use crate::{about, kernel, log};

/// Makes all bridges, and plugs their uplinks in.
pub fn up(bridges: &[Bridge], modules: &mut Modules) -> Result<(), String> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None);
    let socket = socket.map_err(about("socket"))?;
    kernel::bring_up(&socket, "lo").map_err(about("lo"))?;
    for (number, Bridge { name, uplink }) in (0..).zip(bridges) {
        kernel::add_bridge(&socket, name).map_err(about(name))?;
        // Of its own: one that it took from its ports would change with each guest.
        let address = [0x02, b'p', b'e', b't', b'b', number];
        kernel::set_hardware_address(&socket, name, address).map_err(about(name))?;
        match uplink {
            Uplink::None => log(format_args!("bridge {name}: for guests alone")),
            _ => plug(&socket, bridges, name, *uplink, modules)?,
        }
        kernel::bring_up(&socket, name).map_err(about(name))?;
    }
    Ok(())
}

/// Plugs a bridge's uplink in. Interfaces may take a while to appear.
fn plug(
    socket: &OwnedFd,
    bridges: &[Bridge],
    name: &str,
    uplink: Uplink,
    modules: &mut Modules,
) -> Result<(), String> {
    for _ in 0..DISK_LOOKS {
        let Some(interface) = find(uplink, bridges) else {
            sleep(DISK_LOOK);
            modules.load();
            continue;
        };
        let index = netdevice::name_to_index(socket, &interface).map_err(about(&interface))?;
        kernel::bring_up(socket, &interface).map_err(about(&interface))?;
        kernel::add_port(socket, name, index).map_err(about(&interface))?;
        log(format_args!("bridge {name}: its uplink is {interface}, {}", address(&interface)));
        return Ok(());
    }
    let all: Vec<_> = interfaces().iter().map(|name| format!("{name} {}", address(name))).collect();
    let wanted = match uplink {
        Uplink::Mac(mac) => format!("interface {mac}"),
        _ => "network interface that it has a driver for".into(),
    };
    Err(format!("bridge {name}: this machine has no {wanted}; it has: {}", all.join(", ")))
}

fn find(uplink: Uplink, bridges: &[Bridge]) -> Option<String> {
    let has = |name: &String, mac: &petrel_wire::Mac| address(name) == mac.to_string();
    interfaces().into_iter().find(|name| match &uplink {
        Uplink::Mac(mac) => has(name, mac),
        _ => !bridges.iter().any(|bridge| matches!(&bridge.uplink, Uplink::Mac(mac) if has(name, mac))),
    })
}

/// The interfaces that belong to a device of the machine, in the order of their names.
fn interfaces() -> Vec<String> {
    let entries = fs::read_dir("/sys/class/net").into_iter().flatten();
    let real = entries.flatten().filter(|entry| entry.path().join("device").exists());
    let mut names: Vec<_> = real.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

fn address(interface: &str) -> String {
    let text = fs::read_to_string(format!("/sys/class/net/{interface}/address"));
    text.unwrap_or_default().trim().to_owned()
}
