//! `h3cast reload`: has a server read its settings again.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
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
use crate::shown::Short;

#[derive(Debug, Args)]
pub(super) struct ReloadArgs {
    /// The process id of the server. Not needed if you run only one.
    #[arg(value_name = "PID", value_parser = super::values::number(1..=u32::MAX, 4711), conflicts_with = "control")]
    pid: Option<u32>,
    /// The socket of the server, as its --control.
    #[arg(long, env = "H3CAST_CONTROL", value_name = "PATH")]
    control: Option<PathBuf>,
}

/// How long the server may take: it may have to ask for keys at several places.
const PATIENCE: Duration = Duration::from_secs(120);
/// The longest answer, in bytes: it repeats the values of settings.
const LONGEST: u64 = 4 << 20;
/// So much of it is shown, in characters.
const LONGEST_SHOWN: usize = 100_000;

pub(super) async fn run(args: ReloadArgs) -> Result<(), Failure> {
    tokio::task::spawn_blocking(move || ask(&args)).await.map_err(Failure::running)?
}

fn ask(args: &ReloadArgs) -> Result<(), Failure> {
    let (stream, path) = find(args)?;
    let failed =
        |error: io::Error| Failure::running(anyhow!("no answer from the server at {}: {error}", path.display()));
    let outcome = trusted(stream).and_then(told).map_err(failed)?;
    if let Some(error) = &outcome.error {
        return Err(Failure::running(anyhow!("server {} changed nothing: {error}", outcome.pid)));
    }
    print(&format!("{} (server {} at {})\n", Short(&outcome, LONGEST_SHOWN), outcome.pid, path.display()))?;
    if !outcome.restart.is_empty() {
        complain(&format!("needs a restart: {}", outcome.restart.join(", ")));
    }
    Ok(())
}

/// Asks, and waits for what came of it.
fn told(mut stream: UnixStream) -> io::Result<Outcome> {
    let refused = "it has ended, or is another user's";
    let is_closed =
        |error: &io::Error| matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe);
    let closed = |error: io::Error| if is_closed(&error) { io::Error::other(refused) } else { error };
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(format!("{RELOAD}\n").as_bytes()).map_err(closed)?;
    let mut line = String::new();
    BufReader::new(stream.take(LONGEST)).read_line(&mut line).map_err(closed)?;
    match line.ends_with('\n') {
        true => Ok(serde_json::from_str(&line)?),
        false if line.is_empty() => Err(io::Error::other(refused)),
        false => Err(io::Error::other("what answers there is not h3cast")),
    }
}

/// Whether whoever listens there may be asked: this user or root, as the server wants of its clients. Root may ask
/// everyone's server, of which it believes nothing but what it prints.
fn trusted(stream: UnixStream) -> io::Result<UnixStream> {
    stream.set_nonblocking(true)?;
    let stream = tokio::net::UnixStream::from_std(stream)?;
    let (peer, own) = (stream.peer_cred()?.uid(), rustix::process::geteuid().as_raw());
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    match peer == own || peer == 0 || own == 0 {
        true => Ok(stream),
        false => Err(io::Error::other(format!("it is of user {peer}, and you are user {own}"))),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What `told` makes of that answer.
    fn answered(answer: &[u8]) -> io::Result<Outcome> {
        let (here, mut there) = UnixStream::pair().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                // Closed before it is asked, it would be a server that has ended.
                there.read_exact(&mut [0; RELOAD.len() + 1])?;
                // It may be closed while more is to come.
                there.write_all(answer)
            });
            told(here)
        })
    }

    #[test]
    fn an_answer_is_bounded() {
        let outcome = Outcome { pid: 7, ..Outcome::default() };
        let text = format!("{}\n", serde_json::to_string(&outcome).unwrap());
        assert_eq!(answered(text.as_bytes()).unwrap(), outcome);
        let endless = vec![b' '; 64 << 20];
        assert!(answered(&endless).unwrap_err().to_string().contains("not h3cast"));
        assert!(answered(b"").unwrap_err().to_string().contains("another user's"));
    }
}
