//! Debian's packages: downloaded by apt, which verifies them, and unpacked. Nothing is installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::about;
use crate::run::{path, run};

/// Where packages are kept.
pub struct Packages(PathBuf);

impl Packages {
    /// Keeps them in a folder, which is made.
    pub fn new(folder: &Path) -> Result<Self, String> {
        fs::create_dir_all(folder.join("packages")).map_err(about(folder))?;
        let folder = folder.canonicalize().map_err(about(folder))?;
        Ok(Self(folder))
    }

    /// The kernel that `package` depends on, with a list of its modules' dependencies.
    pub fn kernel(&self, package: &str) -> Result<PathBuf, String> {
        let said = run(Command::new("apt-cache").args(["depends", "--important", package]))?;
        let said = String::from_utf8_lossy(&said);
        let mut kernels = said.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
        let kernel = kernels.find(|name| name.starts_with("linux-image-"));
        let kernel = kernel.ok_or_else(|| format!("{package} depends on no kernel: run apt-get update"))?;
        let folder = self.unpacked(kernel)?;
        let version = only(&folder.join("lib/modules"), "")?;
        if !version.join("modules.dep").exists() {
            let version = version.file_name().unwrap_or_default();
            run(Command::new("depmod").arg("-b").arg(&folder).arg(version).env("PATH", path()))?;
        }
        Ok(folder)
    }

    /// The folder of an unpacked package. It is there whole or not at all.
    pub fn unpacked(&self, package: &str) -> Result<PathBuf, String> {
        let folder = self.0.join(package);
        if folder.exists() {
            return Ok(folder);
        }
        let download = self.0.join("packages");
        run(Command::new("apt-get").args(["download", "-q", package]).current_dir(&download))?;
        let archive = only(&download, &format!("{package}_"))?;
        let new = self.0.join(format!("{package}.new"));
        let _ = fs::remove_dir_all(&new);
        run(Command::new("dpkg-deb").arg("-x").args([&archive, &new]))?;
        fs::rename(&new, &folder).map_err(about(&folder))?;
        Ok(folder)
    }
}

/// The one entry of a folder whose name begins so; the last one if there are several.
pub fn only(folder: &Path, start: &str) -> Result<PathBuf, String> {
    let entries = fs::read_dir(folder).map_err(about(folder))?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let last = names.filter(|name| name.starts_with(start)).max();
    last.map(|name| folder.join(name))
        .ok_or_else(|| format!("{}: nothing is called {start}…", folder.display()))
}
