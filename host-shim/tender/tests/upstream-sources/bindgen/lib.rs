//! Empty: stands in for bindgen, see ../Cargo.toml.
