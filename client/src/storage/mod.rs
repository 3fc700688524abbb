//! `petrel volume`, `petrel image` and `petrel get`: what is stored on a host.

pub mod args;
mod shown;
pub mod target;

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use petrel_wire::operator::{
    Download, ImageRequest, ImageResponse, Request, Response, Volume, VolumeRequest, VolumeResponse,
};
use petrel_wire::{Digest, Name};
use ring::digest::{Context, SHA256};
use serde_json::json;

use args::{Get, ImageCommand, Source, VolumeCommand};
pub use shown::{
    COLLECTED_FIELDS, GET_FIELDS, IMAGES_FIELDS, PULL_FIELDS, PUSH_FIELDS, SNAPSHOT_FIELDS, VOLUME_FIELDS,
    VOLUMES_FIELDS,
};
use target::{EVERYBODYS, OWNERS_ONLY, Target};

use crate::args::Json;
use crate::cli::{print, print_data, stray};
use crate::error::Error;
use crate::failure::Failure;
use crate::image::Image;
use crate::progress::Progress;
use crate::sentence::{self, About};
use crate::session::Session;
use crate::units;

/// Runs `petrel volume …`; returns the exit code.
pub fn volume(
    command: &VolumeCommand,
    open: impl FnOnce() -> Result<Session, Failure>,
) -> Result<u8, Failure> {
    match command {
        VolumeCommand::Create { name, bytes, json } => {
            changed(&mut open()?, VolumeRequest::Create { name: name.clone(), bytes: *bytes }, *json)
        }
        VolumeCommand::Resize { name, bytes, json } => {
            changed(&mut open()?, VolumeRequest::Resize { name: name.clone(), bytes: *bytes }, *json)
        }
        VolumeCommand::Ls(form) => {
            let all = open()?.volumes()?;
            let as_json = || all.iter().map(shown::volume_json).collect();
            print_data(form.json, as_json, || shown::volumes(&all))
        }
        VolumeCommand::Push { name, file, json } => push(name, file, *json, open),
        VolumeCommand::Pull { name, file, json } => pull(&mut open()?, name, file, *json),
        VolumeCommand::Snapshot { name, new, json } => snapshot(&mut open()?, name, new, *json),
        VolumeCommand::Rm { name } => {
            match open()?.request(Request::Volume(VolumeRequest::Remove(name.clone())))? {
                Response::Volume(VolumeResponse::Removed) => Ok(0),
                _ => Err(stray()),
            }
        }
    }
}

fn changed(session: &mut Session, request: VolumeRequest, form: Json) -> Result<u8, Failure> {
    match session.request(Request::Volume(request))? {
        Response::Volume(VolumeResponse::Is(volume)) => show_volume(&volume, form),
        _ => Err(stray()),
    }
}

fn show_volume(volume: &Volume, form: Json) -> Result<u8, Failure> {
    print_data(form.json, || shown::volume_json(volume), || shown::volume_line(volume))
}

fn push(
    name: &Name,
    path: &Path,
    form: Json,
    open: impl FnOnce() -> Result<Session, Failure>,
) -> Result<u8, Failure> {
    let fail = |source| Error::File { path: path.into(), source };
    let mut file = File::open(path).map_err(fail)?;
    let metadata = file.metadata().map_err(fail)?;
    if !metadata.is_file() {
        return Err(fail(io::Error::other("not a regular file")).into());
    }
    let bytes = metadata.len();
    let mut progress = Progress::new("uploading", bytes);
    let mut session = open()?;
    // The host makes what it got durable at the end, however long that takes.
    session.wait_forever()?;
    let volume = session.push_volume(name, &mut file, path, bytes, |done| progress.update(done))?;
    drop(progress);
    show_volume(&volume, form)
}

fn pull(session: &mut Session, name: &Name, path: &Path, form: Json) -> Result<u8, Failure> {
    let target = Target::new(path, OWNERS_ONLY)?;
    let request = Request::Volume(VolumeRequest::Pull(name.clone()));
    let (bytes, consistent) = download(session, request, &target, |_| {})?;
    target.finish()?;
    if !consistent {
        warn_of_mixture(name);
    }
    let as_json = || json!({ "name": &**name, "file": path.to_string_lossy(), "bytes": bytes, "consistent": consistent });
    print_data(form.json, as_json, || format!("{} {}\n", path.display(), units::size(bytes)))
}

fn snapshot(session: &mut Session, name: &Name, new: &Name, form: Json) -> Result<u8, Failure> {
    // Copying takes as long as it takes.
    session.wait_forever()?;
    let request = VolumeRequest::Snapshot { name: name.clone(), new: new.clone() };
    let Response::Volume(VolumeResponse::Copied { volume, consistent }) =
        session.request(Request::Volume(request))?
    else {
        return Err(stray());
    };
    if !consistent {
        warn_of_mixture(name);
    }
    let as_json = || {
        let mut value = shown::volume_json(&volume);
        value["consistent"] = json!(consistent);
        value
    };
    print_data(form.json, as_json, || shown::volume_line(&volume))
}

/// It is done, so this is no error.
fn warn_of_mixture(name: &Name) {
    let warning = sentence::say(
        format!("the copy of \"{name}\" is not consistent: a unikernel had the volume while it was read"),
        "a volume that no unikernel has, or a file system on the host that shares blocks (XFS, Btrfs)",
        "destroy the unikernel first if you need one that is",
    );
    let _ = writeln!(io::stderr(), "petrel: {warning}");
}

/// Runs `petrel image …`; returns the exit code.
pub fn image(command: &ImageCommand, open: impl FnOnce() -> Result<Session, Failure>) -> Result<u8, Failure> {
    match command {
        ImageCommand::Push { file, json } => push_image(file, *json, open),
        ImageCommand::Ls(form) => {
            let all = open()?.images()?;
            let as_json = || all.iter().map(shown::image_json).collect();
            print_data(form.json, as_json, || shown::images(&all))
        }
        ImageCommand::Rm { digest } => match ask_about(&mut open()?, *digest, ImageRequest::Remove(*digest))?
        {
            Response::Image(ImageResponse::Removed) => Ok(0),
            _ => Err(stray()),
        },
        ImageCommand::Gc(form) => match open()?.request(Request::Image(ImageRequest::Collect))? {
            Response::Image(ImageResponse::Collected { images, bytes }) => {
                let people = || format!("{images} images deleted, {}\n", units::size(bytes));
                print_data(form.json, || json!({ "images": images, "bytes": bytes }), people)
            }
            _ => Err(stray()),
        },
    }
}

fn ask_about(session: &mut Session, digest: Digest, request: ImageRequest) -> Result<Response, Failure> {
    let shown = format!("{digest:?}");
    let about = About { name: None, image: Some(&shown) };
    session.request(Request::Image(request)).map_err(|error| Failure::about(&error, &about))
}

fn push_image(
    path: &Path,
    form: Json,
    open: impl FnOnce() -> Result<Session, Failure>,
) -> Result<u8, Failure> {
    let image = Image::read(path)?;
    let mut session = open()?;
    let digest = image.digest();
    let mut progress = Progress::new("uploading", image.bytes.len() as u64);
    let shown = path.display().to_string();
    let about = About { name: None, image: Some(&shown) };
    let pushed = session.push(&image.bytes, digest, |done| progress.update(done));
    pushed.map_err(|error| Failure::about(&error, &about))?;
    drop(progress);
    let as_json = || json!({ "digest": digest, "bytes": image.bytes.len() });
    print_data(form.json, as_json, || format!("{digest:?}\n"))
}

/// Runs `petrel get`; returns the exit code.
pub fn get(args: &Get, open: impl FnOnce() -> Result<Session, Failure>) -> Result<u8, Failure> {
    let mut session = open()?;
    let digest = match &args.source {
        Source::Image(digest) => *digest,
        Source::Unikernel(name) => {
            let about = About { name: Some(name), image: None };
            let info = session.request(Request::Info(name.clone()));
            match info.map_err(|error| Failure::about(&error, &about))? {
                Response::Info(info) => info.unikernel.image,
                _ => return Err(stray()),
            }
        }
    };
    let path = args.output.clone().unwrap_or_else(|| default_path(&args.source));
    let target = Target::new(&path, EVERYBODYS)?;
    let mut hash = Context::new(&SHA256);
    let shown = format!("{digest:?}");
    let about = About { name: None, image: Some(&shown) };
    let request = Request::Image(ImageRequest::Pull(digest));
    let got = download(&mut session, request, &target, |data| hash.update(data));
    let (bytes, _) = got.map_err(|error| Failure::about(&error, &about))?;
    let mut received = Digest([0; 32]);
    received.0.copy_from_slice(hash.finish().as_ref());
    if received != digest {
        return Err(Error::Digest { asked: digest, received }.into());
    }
    target.finish()?;
    if args.json.json {
        let told = json!({ "digest": digest, "bytes": bytes, "file": path.to_string_lossy() });
        return print(&format!("{told:#}\n"));
    }
    print(&format!("{} {}\n", path.display(), units::size(bytes)))
}

fn default_path(source: &Source) -> PathBuf {
    match source {
        Source::Unikernel(name) => format!("{}.hvt", name.rsplit(':').next().unwrap_or(name)).into(),
        Source::Image(digest) => format!("{digest}.hvt").into(),
    }
}

/// Downloads into `target`; `saw` sees the bytes in order. Returns the size, and whether it is consistent.
fn download(
    session: &mut Session,
    request: Request,
    target: &Target,
    mut saw: impl FnMut(&[u8]),
) -> Result<(u64, bool), Error> {
    let mut progress = Progress::new("downloading", 0);
    let mut size = 0;
    let consistent = session.download(request, |step| match step {
        Download::Begin { bytes } => {
            (size, progress) = (*bytes, Progress::new("downloading", *bytes));
            target.set_size(*bytes)
        }
        Download::Data { offset, data } => {
            saw(data);
            target.write(*offset, data)?;
            progress.update(offset + data.len() as u64);
            Ok(())
        }
        Download::End { .. } => Ok(()),
    })?;
    Ok((size, consistent))
}
