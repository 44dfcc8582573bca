//! A running server is found by clients of its user, from whatever folder they are started in.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
};

use crate::program::{Program, Serving, command, output, soon, text};
use serde_json::Value;
use tokio::process::Command;

/// A user's folders: one for files of running programs, and others to work in.
pub(crate) struct User {
    dir: tempfile::TempDir,
}

impl User {
    pub(crate) fn new() -> Self {
        let user = Self { dir: tempfile::tempdir().unwrap() };
        fs::create_dir(user.run()).unwrap();
        user
    }

    fn run(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    /// A folder to work in.
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        let folder = self.dir.path().join(name);
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    pub(crate) fn command(&self, folder: &Path, args: &[&str]) -> Command {
        let mut command = command(folder, args);
        command.env("HOME", self.dir.path()).env("XDG_RUNTIME_DIR", self.run());
        command
    }

    /// A server that was started in that folder.
    pub(crate) async fn serve(&self, folder: &str, args: &[&str]) -> Serving {
        let args = [&["serve", "--listen", "localhost:0", "--http", "off"], args].concat();
        let program = Program::of(self.command(&self.folder(folder), &args));
        Serving::of(program).await
    }

    /// Runs a command in another folder than any server's, and gives its exit code and what it said.
    pub(crate) async fn runs(&self, args: &[&str]) -> (Option<i32>, String, String) {
        let got = soon("the program ends", self.command(&self.folder("elsewhere"), args).output()).await.unwrap();
        (got.status.code(), text(&got.stdout), text(&got.stderr))
    }

    /// The notes there; `h3cast reload` has its sockets beside them.
    pub(crate) fn notes(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.run().join("h3cast")) else { return Vec::new() };
        let paths = entries.map(|entry| entry.unwrap().path());
        paths.filter(|path| path.extension().is_some_and(|extension| extension == "json")).collect()
    }
}

pub(crate) fn demo() -> String {
    (0..10).map(|number| format!("data chunk #{number}\n")).collect()
}

#[tokio::test]
async fn every_command_finds_the_server_from_any_folder() {
    let user = User::new();
    let one = user.serve("one", &["demo", "log=publish", "--interval", "1ms"]).await;
    let other = user.serve("other", &["demo", "--interval", "1ms"]).await;
    for server in [&one, &other] {
        for host in ["localhost", "127.0.0.1", "[::1]"] {
            let url = format!("https://{host}:{}/stream", server.port);
            for more in [&[][..], &["--webtransport"], &["--resume"]] {
                let (code, stdout, stderr) = user.runs(&[&["get", &url], more].concat()).await;
                assert_eq!((code, stdout), (Some(0), demo()), "{url} {more:?}: {stderr}");
            }
        }
    }
    let (code, _, stderr) = user.runs(&["publish", &one.url("/stream/log")]).await;
    assert_eq!(code, Some(0), "{stderr}");
    for version in ["h1", "h2", "h3"] {
        let args = ["bench", &other.url("/stream"), "-c", "2", "-d", "20", "--warm-up", "0", "--http", version];
        let (code, _, stderr) = user.runs(&args).await;
        assert_eq!(code, Some(0), "{version}: {stderr}");
    }
    assert_eq!(user.notes().len(), 2);
    // Notes are for their owner.
    for note in user.notes() {
        assert_eq!(fs::metadata(&note).unwrap().permissions().mode() & 0o777, 0o600);
        let text = fs::read_to_string(&note).unwrap();
        assert!(!text.contains("PRIVATE"), "{text}");
    }
    assert_eq!(fs::metadata(user.run().join("h3cast")).unwrap().permissions().mode() & 0o777, 0o700);
}

#[tokio::test]
async fn a_note_goes_with_its_server() {
    let user = User::new();
    let killed = user.serve("one", &["demo"]).await;
    let pid = killed.program.id();
    killed.program.kill().await;
    let [left] = <[PathBuf; 1]>::try_from(user.notes()).unwrap();
    let note: Value = serde_json::from_slice(&fs::read(&left).unwrap()).unwrap();
    assert_eq!(note["pid"], pid);
    assert_eq!(note["certificate"], user.folder("one").join("certs/cert.pem").to_str().unwrap());
    // The next one cleans up after it, and after itself.
    let next = user.serve("two", &["demo"]).await;
    assert_eq!(user.notes().len(), 1);
    assert!(!left.exists());
    next.program.signal("TERM");
    let (_, stderr, code) = next.program.end().await;
    assert_eq!(code, Some(0), "{stderr}");
    assert!(user.notes().is_empty(), "{:?}", user.notes());
}

#[tokio::test]
async fn a_server_without_a_place_for_its_note_serves() {
    let user = User::new();
    // Not even root can create a folder in a file.
    let nowhere = user.folder("x").join("file");
    fs::write(&nowhere, "").unwrap();
    let mut command = user.command(&user.folder("one"), &["--listen", "localhost:0", "--http", "off", "--count", "2"]);
    command.env("HOME", &nowhere).env("XDG_RUNTIME_DIR", &nowhere);
    let mut program = Program::of(command);
    program.told("cannot leave a note").await;
    let server = Serving::of(program).await;
    let (code, ..) = user.runs(&["get", "--insecure", &server.url("/stream")]).await;
    assert_eq!(code, Some(0));
    // There is none where the preferred folder cannot be written: the other one is used.
    let mut command = user.command(&user.folder("two"), &["--listen", "localhost:0", "--http", "off", "--count", "2"]);
    command.env("XDG_RUNTIME_DIR", &nowhere);
    let server = Serving::of(Program::of(command)).await;
    let (code, _, stderr) = user.runs(&["get", &server.url("/stream")]).await;
    assert_eq!(code, Some(0), "{stderr}");
}

#[tokio::test]
async fn what_another_user_could_have_written_is_not_trusted() {
    let user = User::new();
    let server = user.serve("one", &["demo"]).await;
    let url = server.url("/stream");
    let notes = user.run().join("h3cast");
    let note = user.notes().remove(0);
    let get = async || user.runs(&["get", &url]).await.0;
    assert_eq!(get().await, Some(0));
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    mode(&note, 0o666);
    assert_eq!(get().await, Some(1), "anyone could have written it");
    mode(&note, 0o600);
    mode(&notes, 0o777);
    assert_eq!(get().await, Some(1), "anyone could have put it there");
    mode(&notes, 0o700);
    assert_eq!(get().await, Some(0));
    // A link in a shared folder, to a folder of this user's.
    let shared = user.folder("shared");
    std::os::unix::fs::symlink(&notes, shared.join("h3cast")).unwrap();
    let mut command = user.command(&user.folder("elsewhere"), &["get", &url]);
    command.env("XDG_RUNTIME_DIR", &shared).stdout(Stdio::null());
    assert_eq!(soon("its end", command.status()).await.unwrap().code(), Some(1));
}

/// A client that waits for a server trusts it whenever it comes, with whatever certificate.
#[tokio::test]
async fn a_client_may_be_there_before_its_server() {
    let user = User::new();
    let first = user.serve("one", &["demo"]).await;
    let (port, url) = (first.port, first.url("/stream"));
    first.program.kill().await;
    let mut get = Program::of(user.command(&user.folder("elsewhere"), &["get", "--resume", &url]));
    get.told("no answer").await;
    let listen = format!("localhost:{port}");
    let args = ["serve", "--listen", &listen, "--http", "off"];
    let _second = Serving::of(Program::of(user.command(&user.folder("two"), &args))).await;
    let (stdout, stderr, code) = get.end().await;
    assert_eq!((code, text(&stdout)), (Some(0), demo()), "{stderr}");
}

/// A panic while the note is kept takes the note with it: another one is left.
#[cfg(debug_assertions)]
#[tokio::test]
async fn a_note_that_is_lost_with_a_panic_is_left_again() {
    let user = User::new();
    let args = ["serve", "--listen", "localhost:0", "--http", "off", "demo", "--interval", "1ms"];
    let mut serving = user.command(&user.folder("server"), &args);
    serving.env("H3CAST_FAULT", "note=panic");
    let mut serving = Serving::of(Program::of(serving)).await;
    serving.program.told("note for clients on this machine").await;
    soon("another note", async {
        while user.notes().is_empty() {
            // Nobody tells when it is there.
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await;
    let (code, stdout, stderr) = user.runs(&["get", &serving.url("/stream")]).await;
    assert_eq!((code, stdout), (Some(0), demo()), "{stderr}");
    serving.program.signal("TERM");
    assert_eq!(serving.program.end().await.2, Some(0));
    assert_eq!(user.notes(), [] as [PathBuf; 0]);
}

/// Replaced while the server runs, an own certificate is found by its note.
#[tokio::test]
async fn the_note_follows_the_certificate() {
    let user = User::new();
    let folder = user.folder("own");
    let make = |hosts: &str| crate::trust::self_signed(&folder, "own", hosts);
    make("DNS:cast.example");
    let (cert, key) = (folder.join("own.pem"), folder.join("own.key"));
    let args = ["demo", "--cert", cert.to_str().unwrap(), "--key", key.to_str().unwrap()];
    let mut server = user.serve("own", &args).await;
    // It was told to be this user's: what names it has does not matter.
    let (code, stdout, stderr) = user.runs(&["get", &server.url("/stream")]).await;
    assert_eq!((code, stdout), (Some(0), demo()), "{stderr}");
    make("DNS:other.example");
    server.program.told("the certificate was renewed").await;
    soon("its note follows", async { while user.runs(&["get", &server.url("/stream")]).await.0 != Some(0) {} }).await;
    // A folder that is removed, as at the user's logout, is made again.
    fs::remove_dir_all(user.run().join("h3cast")).unwrap();
    soon("the note is left again", async {
        while user.notes().len() != 1 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    let (code, ..) = user.runs(&["get", &server.url("/stream")]).await;
    assert_eq!(code, Some(0));
}

#[tokio::test]
async fn open_finds_the_server_by_its_port() {
    let user = User::new();
    let args = ["demo", "--http", "localhost:0"];
    let args = [&["serve", "--listen", "localhost:0"], &args[..]].concat();
    let mut server = Program::of(user.command(&user.folder("one"), &args));
    let mut announced = String::new();
    while !announced.contains("SPKI") {
        announced += &server.line().await;
    }
    let word = |start: &str| {
        let rest = announced.split_once(start).unwrap_or_else(|| panic!("`{start}` in {announced}")).1;
        rest.split_whitespace().next().unwrap().to_owned()
    };
    let (page, spki) = (word("over HTTP/3"), word("public key     SHA-256"));
    let other = user.serve("other", &["demo", "--interval", "1ms"]).await;
    // No browser is found; its command is printed.
    let run = async |args: &[&str]| {
        let mut command = user.command(&user.folder("elsewhere"), args);
        let got = soon("its end", command.env("PATH", "").output()).await.unwrap();
        (got.status.code(), text(&got.stdout), text(&got.stderr))
    };
    let (code, stdout, stderr) = run(&["open", "chrome", &page]).await;
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stdout.contains(&format!("--ignore-certificate-errors-spki-list={spki} ")), "{stdout} {stderr}");
    let (_, stdout, _) = run(&["open", "chrome", &other.url("/")]).await;
    assert!(stdout.contains("--ignore-certificate-errors-spki-list=") && !stdout.contains(&spki), "{stdout}");
    // Firefox takes the plain page, which the note names.
    let plain = announced.lines().find_map(|line| line.strip_prefix("ready ")).unwrap().to_owned();
    let (_, stdout, _) = run(&["open", "firefox", &page]).await;
    assert_eq!(stdout.trim(), format!("firefox {plain}"));
    // Nobody is at that port, and there is no folder of certificates: nothing is created.
    let (code, stdout, stderr) = run(&["open", "chrome", "https://localhost:1/"]).await;
    assert_eq!((code, stdout.as_str()), (Some(1), ""), "{stderr}");
    assert!(stderr.contains("no server") && stderr.contains("--certs"), "{stderr}");
    assert!(!user.folder("elsewhere").join("certs").exists());
    let (code, _, stderr) = run(&["open", "chrome", "http://localhost:1/"]).await;
    assert_eq!(code, Some(2), "{stderr}");
}

/// A certificate in the current folder is not enough for `open`: there must be a server.
#[tokio::test]
async fn a_port_alone_is_the_default_one() {
    let dir = tempfile::tempdir().unwrap();
    let server = Serving::start(dir.path(), 0, &["demo"]).await;
    drop(server);
    let mut command = command(dir.path(), &["open", "chrome", "https://localhost/"]);
    let got = soon("its end", command.env("PATH", "").output()).await.unwrap();
    assert_eq!((got.status.code(), text(&got.stdout).as_str()), (Some(1), ""));
    let told = text(&got.stderr);
    assert!(told.contains("nothing is listening on localhost: start a server"), "{told}");
    let got = output(dir.path(), &["get", &format!("https://localhost:{}/", 1)]).await;
    assert_eq!(got.status.code(), Some(1));
}
