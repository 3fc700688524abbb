//! The command line, as far as it is about appliances.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use petrel_wire::Mac;
use petrel_wire::sealed::{Bridge, Uplink};

/// What `appliance` does.
#[derive(Debug, Subcommand)]
pub enum ApplianceVerb {
    /// Show which system it has booted, and what became of the last upgrade
    Status,
    /// Show the last lines of what it has said since it was turned on
    ///
    /// That is what its first process, its shim and its control plane say on its console, and the kernel's warnings, each with the
    /// seconds since power on: the last 16 to 32 KiB.
    Log,
    /// End all that runs in order, and start anew
    Reboot,
    /// End all that runs in order, and turn itself off
    #[command(name = "poweroff")]
    PowerOff,
    /// Sign a system (`petrel.efi`) with the key of the operators' CA: appliances take no other
    Sign {
        /// The folder that `petrel init --appliance` has made
        site: PathBuf,
        /// The system
        system: PathBuf,
        /// The signed system, which is made
        to: PathBuf,
    },
    /// Put a signed system into the other slot and boot it once: keep it if it comes up and answers
    ///
    /// A system that does not come up, or that nobody keeps within two minutes, is not booted again: the machine goes back to
    /// the one before by itself.
    Upgrade {
        /// The signed system
        system: PathBuf,
    },
    /// Keep the system that was booted once; `upgrade` does that by itself
    Confirm,
}

/// What `seal` takes.
#[derive(Debug, Args)]
pub struct Seal {
    /// The folder that `petrel init --appliance` has made
    pub site: PathBuf,
    /// Where the sealed host goes: a file, which is made, or an appliance's image, into its partition petrel-seal
    #[arg(value_name = "FILE|IMAGE")]
    pub to: PathBuf,
    /// The one machine that may be this host, by its SMBIOS UUID; any when absent
    #[arg(long, value_name = "UUID", value_parser = machine)]
    pub machine: Option<String>,
    /// What a bridge's uplink is: an interface's hardware address, `first` (that no other bridge has) or `none`;
    /// when absent, the first bridge has the first interface
    #[arg(long, value_name = "BRIDGE=MAC|first|none", value_parser = uplink)]
    pub uplink: Vec<Bridge>,
}

fn machine(text: &str) -> Result<String, String> {
    let lengths: Vec<_> = text.split('-').map(str::len).collect();
    let is_hex = text.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
    if is_hex && lengths == [8, 4, 4, 4, 12] {
        return Ok(text.to_ascii_lowercase());
    }
    Err("expected a UUID, as /sys/class/dmi/id/product_uuid has on the machine".into())
}

fn uplink(text: &str) -> Result<Bridge, String> {
    let (bridge, uplink) = text.split_once('=').ok_or("expected BRIDGE=MAC, as service=52:54:00:12:34:56")?;
    let uplink = match uplink {
        "none" => Uplink::None,
        "first" => Uplink::First,
        text => Uplink::Mac(mac(text).ok_or("expected six bytes in hexadecimal, as 52:54:00:12:34:56")?),
    };
    Ok(Bridge { name: super::bridge(bridge)?, uplink })
}

fn mac(text: &str) -> Option<Mac> {
    let bytes: Vec<_> =
        text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect::<Option<_>>()?;
    (text.len() == 17).then(|| bytes.try_into().ok().map(Mac))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_uplink_is_an_address_or_a_word() {
        let parsed = |text| uplink(text).map(|bridge| (bridge.name.to_string(), bridge.uplink));
        let service = |uplink| Ok(("service".to_owned(), uplink));
        assert_eq!(
            parsed("service=52:54:00:12:34:5f"),
            service(Uplink::Mac(Mac([0x52, 0x54, 0, 0x12, 0x34, 0x5f])))
        );
        assert_eq!(parsed("service=none"), service(Uplink::None));
        for bad in ["service", "service=", "service=1:2:3:4:5:6", "service=52:54:00:12:34", "a/b=first"] {
            assert!(parsed(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_machine_is_named_by_its_uuid() {
        assert_eq!(
            machine("4C4C4544-0000-2010-8020-80C04F202020").unwrap(),
            "4c4c4544-0000-2010-8020-80c04f202020"
        );
        assert!(machine("alpha").is_err() && machine("----").is_err());
    }
}
