//! `h3cast reload`: has a server read its settings again.

use std::{
    io::{self, BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    time::Duration,
};

use anyhow::anyhow;
use clap::Args;

use super::{
    Failure, complain, print,
    serve::control::{RELOAD, folders, sockets},
    serve::reload::Outcome,
};

#[derive(Debug, Args)]
pub(super) struct ReloadArgs {
    /// The process id of the server. Not needed if you run only one.
    #[arg(value_name = "PID", conflicts_with = "control")]
    pid: Option<u32>,
    /// The socket of the server, as its --control.
    #[arg(long, env = "H3CAST_CONTROL", value_name = "PATH")]
    control: Option<PathBuf>,
}

/// How long the server may take: it may have to ask for keys at several places.
const PATIENCE: Duration = Duration::from_secs(120);

pub(super) async fn run(args: ReloadArgs) -> Result<(), Failure> {
    tokio::task::spawn_blocking(move || ask(&args)).await.map_err(Failure::running)?
}

fn ask(args: &ReloadArgs) -> Result<(), Failure> {
    let (stream, path) = find(args)?;
    let failed =
        |error: io::Error| Failure::running(anyhow!("no answer from the server at {}: {error}", path.display()));
    let outcome = told(stream).map_err(failed)?;
    if let Some(error) = &outcome.error {
        return Err(Failure::running(anyhow!("the server {} has not changed anything: {error}", outcome.pid)));
    }
    print(&format!("{outcome}\n"))?;
    if !outcome.restart.is_empty() {
        complain(&format!("needs a restart: {}", outcome.restart.join(", ")));
    }
    Ok(())
}

/// Asks, and waits for what came of it.
fn told(mut stream: UnixStream) -> io::Result<Outcome> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(format!("{RELOAD}\n").as_bytes())?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    if line.is_empty() {
        return Err(io::Error::other("it has ended, or is another user's"));
    }
    Ok(serde_json::from_str(&line)?)
}

/// The server that is meant.
fn find(args: &ReloadArgs) -> Result<(UnixStream, PathBuf), Failure> {
    let failed = |text: String| Err(Failure::running(anyhow!(text)));
    if let Some(path) = &args.control {
        return match UnixStream::connect(path) {
            Ok(stream) => Ok((stream, path.clone())),
            Err(error) => failed(format!("cannot reach a server at {}: {error}", path.display())),
        };
    }
    let folders = folders();
    let all = folders.iter().flat_map(|folder| sockets(folder));
    let wanted = all.filter(|(pid, _)| args.pid.is_none_or(|wanted| wanted == *pid));
    let mut running: Vec<_> =
        wanted.filter_map(|(pid, path)| Some((pid, UnixStream::connect(&path).ok()?, path))).collect();
    let which = args.pid.map(|pid| format!(" with the process id {pid}")).unwrap_or_default();
    match running.len() {
        1 => {
            let (_, stream, path) = running.remove(0);
            Ok((stream, path))
        }
        0 => {
            let folders: Vec<_> = folders.iter().map(|folder| folder.display().to_string()).collect();
            failed(format!(
                "found no server of yours{which} (looked in {}): give --control PATH as the server has it, or send it \
                 SIGUSR1 (kill -USR1 PID) and look at its log",
                folders.join(", ")
            ))
        }
        _ => {
            let pids: Vec<_> = running.iter().map(|(pid, ..)| pid.to_string()).collect();
            let first = &pids[0];
            failed(format!("there are several servers ({}): name one, as in `h3cast reload {first}`", pids.join(", ")))
        }
    }
}
