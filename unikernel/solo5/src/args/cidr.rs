//! An IPv4 address and the size of its network, as `--ipv4` takes it.

use core::fmt;
use core::net::Ipv4Addr;
use core::str::FromStr;

/// An interface's address with the length of its network's prefix: 10.0.0.2/24.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4Cidr {
    address: Ipv4Addr,
    prefix_len: u8,
}

impl Ipv4Cidr {
    /// The interface's address.
    pub fn address(self) -> Ipv4Addr {
        self.address
    }

    /// Bits of the network's prefix, at most 32.
    pub fn prefix_len(self) -> u8 {
        self.prefix_len
    }
}

impl fmt::Display for Ipv4Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_len)
    }
}

/// Why a text is not an interface's address and prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CidrError {
    /// Not of the form ADDRESS/PREFIX.
    Form,
    /// The prefix is longer than 32 bits.
    Prefix,
    /// No interface can have this address: unspecified, loopback, multicast or broadcast.
    Address,
}

impl fmt::Display for CidrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Form => "expected an IPv4 address and a prefix length, like 10.0.0.2/24",
            Self::Prefix => "the prefix length is at most 32",
            Self::Address => "an interface cannot have this address",
        })
    }
}

impl core::error::Error for CidrError {}

impl FromStr for Ipv4Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let (address, prefix) = text.split_once('/').ok_or(CidrError::Form)?;
        let address: Ipv4Addr = address.parse().map_err(|_| CidrError::Form)?;
        let is_number = !prefix.is_empty() && prefix.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number {
            return Err(CidrError::Form);
        }
        let prefix_len = prefix.parse().ok().filter(|&len| len <= 32).ok_or(CidrError::Prefix)?;
        if address.is_unspecified()
            || address.is_loopback()
            || address.is_multicast()
            || address.is_broadcast()
        {
            return Err(CidrError::Address);
        }
        Ok(Self { address, prefix_len })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn an_address_with_its_prefix_is_taken() {
        let cidr: Ipv4Cidr = "169.254.25.2/30".parse().unwrap();
        assert_eq!((cidr.address(), cidr.prefix_len()), (Ipv4Addr::new(169, 254, 25, 2), 30));
        assert_eq!(cidr.to_string(), "169.254.25.2/30");
        for text in ["10.0.0.2/0", "10.0.0.2/32"] {
            assert_eq!(text.parse::<Ipv4Cidr>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_address_and_prefix_is_refused_with_the_reason() {
        for (text, expected) in [
            ("", CidrError::Form),
            ("10.0.0.2", CidrError::Form),
            ("10.0.0/24", CidrError::Form),
            ("10.0.0.256/24", CidrError::Form),
            ("10.0.0.2/", CidrError::Form),
            ("10.0.0.2/+8", CidrError::Form),
            ("10.0.0.2/24/8", CidrError::Form),
            ("fe80::1/64", CidrError::Form),
            ("10.0.0.2/33", CidrError::Prefix),
            ("10.0.0.2/4294967300", CidrError::Prefix),
            ("0.0.0.0/0", CidrError::Address),
            ("127.0.0.1/8", CidrError::Address),
            ("224.0.0.1/24", CidrError::Address),
            ("255.255.255.255/32", CidrError::Address),
        ] {
            assert_eq!(text.parse::<Ipv4Cidr>(), Err(expected), "{text}");
        }
    }
}
