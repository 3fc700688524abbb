//! Any bytes as an image: the tender takes or refuses them, up to the point where it would run them.
#![no_main]

use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::AsRawFd;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

/// The image, for a loader that wants a path. One for all runs.
static FILE: LazyLock<File> = LazyLock::new(|| {
    rustix::fs::memfd_create("image", rustix::fs::MemfdFlags::CLOEXEC).expect("Linux has them").into()
});

fuzz_target!(|bytes: &[u8]| {
    let mut file: &File = &FILE;
    file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(bytes)).expect("a memory file");
    let _ = petrel_tender::load(format!("/proc/self/fd/{}", file.as_raw_fd()).as_ref(), 4 << 20);
});
