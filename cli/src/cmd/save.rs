//! `davit save`, and how an archive goes to a file or to standard output.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use davit_contracts::storage::save_request::Format;
use davit_contracts::storage::{Chunk, SaveRequest};
use tonic::Streaming;

use crate::app::App;
use crate::args::image::SaveArgs;
use crate::attach::terminal;
use crate::error::{Failure, Outcome};

/// `davit save`
pub async fn save(app: &App, args: &SaveArgs) -> Outcome {
    refuse_terminal(args.output.as_deref())?;
    let format = if args.format == "oci-archive" { Format::Oci } else { Format::DockerArchive };
    let request = SaveRequest { references: args.images.clone(), format: format as i32 };
    let stream = app.storage(app.images().await?.save(request)).await?;
    to_output(app, stream, args.output.as_deref()).await
}

/// An archive on a terminal helps nobody.
pub fn refuse_terminal(output: Option<&Path>) -> Outcome {
    if output.is_none() && terminal::is_terminal(&std::io::stdout()) {
        let text = "cowardly refusing to save to a terminal. Use the -o flag or redirect";
        return Err(Failure::new(davit_contracts::Kind::InvalidArgument, text));
    }
    Ok(())
}

/// Writes a stream to standard output, or to a file that appears only when it is whole.
pub async fn to_output(app: &App, mut stream: Streaming<Chunk>, output: Option<&Path>) -> Outcome {
    // Nothing is made for an archive that is refused.
    let first = stream.message().await.map_err(|s| app.refused("storaged", s))?;
    let written = |e: &std::io::Error| Failure::io("cannot write the archive", e);
    let draft = output.filter(|p| !p.exists() || p.is_file()).map(Draft::create).transpose()?;
    let mut out: Box<dyn Write> = match (&draft, output) {
        (Some(draft), _) => Box::new(draft.file.try_clone().map_err(|e| written(&e))?),
        (None, Some(device)) => Box::new(
            File::options()
                .write(true)
                .open(device)
                .map_err(|e| Failure::io(format!("cannot write {}", device.display()), &e))?,
        ),
        (None, None) => Box::new(std::io::stdout()),
    };
    let mut next = first;
    while let Some(chunk) = next {
        out.write_all(&chunk.data).map_err(|e| written(&e))?;
        next = stream.message().await.map_err(|s| app.refused("storaged", s))?;
    }
    out.flush().map_err(|e| written(&e))?;
    draft.map_or(Ok(()), Draft::keep)
}

/// A file under another name until it is whole; removed when it is dropped before.
struct Draft {
    file: File,
    path: PathBuf,
    name: PathBuf,
}

impl Draft {
    fn create(name: &Path) -> Outcome<Self> {
        let mut path = name.to_path_buf().into_os_string();
        path.push(format!(".{}.tmp", std::process::id()));
        let path = PathBuf::from(path);
        let file =
            File::create(&path).map_err(|e| Failure::io(format!("cannot write {}", name.display()), &e))?;
        Ok(Self { file, path, name: name.to_owned() })
    }

    fn keep(self) -> Outcome {
        std::fs::rename(&self.path, &self.name)
            .map_err(|e| Failure::io(format!("cannot write {}", self.name.display()), &e))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // After it was kept it is not there any more.
        let _ = std::fs::remove_file(&self.path);
    }
}
