//! What the tests stand on. Each test program needs only some of it.
#![allow(dead_code)]

pub mod image;
pub mod netns;
pub mod ping;
pub mod run;
pub mod solo5;

use std::fs;
use std::path::{Path, PathBuf};

/// A folder for one test, removed when the test ends well; a failed test leaves it to be looked at.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new(test: &str) -> Scratch {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{test}.{}", std::process::id()));
        fs::create_dir_all(&folder).expect("the target directory is writable");
        Scratch(folder)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A file with these bytes.
    pub fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, content).expect("the target directory is writable");
        path
    }

    /// The names of what is in the folder, in order.
    pub fn listing(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).expect("the folder exists");
        let mut names: Vec<_> = entries
            .map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}
