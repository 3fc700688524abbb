//! Writes real inputs for the fuzzers to begin with: `petrel-fuzzed FOLDER` fills `FOLDER/TARGET/`.
#![forbid(unsafe_code)]

use std::{error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let corpus = PathBuf::from(std::env::args_os().nth(1).ok_or("usage: petrel-fuzzed FOLDER")?);
    for target in petrel_fuzzed::TARGETS {
        let folder = corpus.join(target.name);
        fs::create_dir_all(&folder)?;
        for (number, seed) in (target.seeds)().iter().enumerate() {
            fs::write(folder.join(format!("seed-{number}")), seed)?;
        }
    }
    Ok(())
}
