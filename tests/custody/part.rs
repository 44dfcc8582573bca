//! `get -o`: `FILE.part` and its mark are those of one run of one user, and nobody else's.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
};

use tokio::process::Command;

use super::{FREE, Program, Serving, program::soon, snapshot, text};

/// A feed that has begun and does not end, one that is whole, and one that is not there.
async fn serving(dir: &Path) -> (Serving, [String; 3]) {
    let feeds = ["live=exec:echo one; exec sleep 1000", "whole=exec:echo two", "--grace", "0s"];
    let serving = Serving::start(dir, &[&feeds[..], &FREE].concat()).await;
    let url = |feed| format!("{}/{feed}?from=start", serving.url("localhost"));
    let urls = [url("live"), url("whole"), url("nothing")];
    (serving, urls)
}

/// A folder in which only this test writes.
fn folder(at: &Path, name: &str) -> std::path::PathBuf {
    let folder = at.join(name);
    fs::create_dir(&folder).unwrap();
    folder
}

/// `h3cast get -o out URL --certs …`, and more.
fn get(dir: &Path, url: &str) -> Command {
    super::program::command(dir, &["get", "--certs", "../certs", "-o", "out", url])
}

async fn run(mut command: Command) -> (String, Option<i32>) {
    let got = soon("the program ends", command.output()).await.unwrap();
    (text(&got.stderr), got.status.code())
}

async fn until_written(dir: &Path) {
    soon("the part is written", async {
        while fs::read(dir.join("out.part")).unwrap_or_default() != b"one\n" {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// A part and its mark, as a run leaves them that is killed.
async fn left_behind(dir: &Path, live: &str) {
    let get = Program::of(get(dir, live));
    until_written(dir).await;
    get.kill().await;
}

#[tokio::test]
async fn what_others_could_write_is_left_alone() {
    type Arrange = fn(&Path) -> std::io::Result<()>;
    const NOBODY: Option<u32> = Some(65534);
    fn mode(path: &Path, mode: u32) -> std::io::Result<()> {
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
    }
    let cases: [(&str, Arrange); 7] = [
        ("out.part can be written by other users", |dir| mode(&dir.join("out.part"), 0o666)),
        ("out.part can be written by other users", |dir| mode(&dir.join("out.part"), 0o620)),
        ("out.part.json can be written by other users", |dir| mode(&dir.join("out.part.json"), 0o602)),
        ("out.part has more than one name", |dir| fs::hard_link(dir.join("out.part"), dir.join("other"))),
        ("out.part.json has more than one name", |dir| fs::hard_link(dir.join("out.part.json"), dir.join("other"))),
        ("out.part belongs to another user (uid 65534)", |dir| chown(dir.join("out.part"), NOBODY, None)),
        ("out.part.json belongs to another user (uid 65534)", |dir| {
            chown(dir.join("out.part"), NOBODY, None)?;
            chown(dir.join("out.part.json"), NOBODY, None)
        }),
    ];
    let dir = tempfile::tempdir().unwrap();
    let (_serving, [live, whole, _]) = serving(dir.path()).await;
    for (number, (expected, arrange)) in cases.into_iter().enumerate() {
        let at = folder(dir.path(), &number.to_string());
        left_behind(&at, &live).await;
        if let Err(error) = arrange(&at) {
            assert!(expected.contains("another user") && !rustix::process::geteuid().is_root(), "{error}");
            eprintln!("SKIPPED, only root can give files away: {expected}");
            continue;
        }
        let before = snapshot(&at);
        for more in [&[][..], &["--resume"]] {
            let mut command = get(&at, &whole);
            command.args(more);
            let (told, code) = run(command).await;
            assert!(told.contains(expected) && told.contains("is left alone"), "{expected}: {told}");
            assert_eq!((told.lines().count(), code), (1, Some(2)), "{told}");
            assert_eq!(snapshot(&at), before, "{expected}");
        }
    }
}

#[tokio::test]
async fn the_file_is_as_the_umask_says_and_its_part_ours_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (_serving, [live, whole, _]) = serving(dir.path()).await;
    for (umask, mode) in [("002", 0o664), ("022", 0o644), ("077", 0o600)] {
        let at = folder(dir.path(), umask);
        let masked = |url: &str| {
            let get = get(&at, url);
            let mut command = Command::new("sh");
            command.args(["-c", &format!("umask {umask}; exec \"$@\""), "sh"]).arg(get.as_std().get_program());
            command.args(get.as_std().get_args()).current_dir(&at).kill_on_drop(true);
            command
        };
        let killed = Program::of(masked(&live));
        until_written(&at).await;
        killed.kill().await;
        assert_eq!(fs::metadata(at.join("out.part")).unwrap().permissions().mode() & 0o777, 0o600);
        fs::remove_file(at.join("out.part")).unwrap();
        assert_eq!(run(masked(&whole)).await, (String::new(), Some(0)));
        let found = snapshot(&at);
        assert_eq!(found.keys().collect::<Vec<_>>(), ["out"]);
        assert_eq!((found["out"].1 & 0o777, &found["out"].2[..]), (mode, &b"two\n"[..]), "{umask}");
    }
    // What is there keeps its permissions, unless another user has set them.
    let at = folder(dir.path(), "there");
    for (mode, owner, after) in [(0o646, None, 0o646), (0o600, None, 0o600), (0o666, Some(65534), 0o644)] {
        let _ = fs::remove_file(at.join("out"));
        fs::write(at.join("out"), "before").unwrap();
        fs::set_permissions(at.join("out"), fs::Permissions::from_mode(mode)).unwrap();
        if owner.is_some() && chown(at.join("out"), owner, None).is_err() {
            eprintln!("SKIPPED, only root can give files away: a FILE of another user");
            continue;
        }
        assert_eq!(run(get(&at, &whole)).await, (String::new(), Some(0)));
        assert_eq!(fs::metadata(at.join("out")).unwrap().permissions().mode() & 0o7777, after);
    }
}

#[tokio::test]
async fn a_start_that_fails_leaves_no_part() {
    let dir = tempfile::tempdir().unwrap();
    let get = super::program::command(dir.path(), &[]);
    let mut command = Command::new("bash");
    command.args(["-c", "exec \"$0\" get -o out https://localhost:9/stream --cacert <(echo nothing)"]);
    command.arg(get.as_std().get_program()).current_dir(dir.path()).kill_on_drop(true);
    let (told, code) = run(command).await;
    assert_eq!((told.lines().count(), code), (1, Some(2)), "{told}");
    assert!(snapshot(dir.path()).is_empty());
}

#[tokio::test]
async fn what_a_process_of_the_same_number_left_behind_hinders_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let (_serving, [_, whole, _]) = serving(dir.path()).await;
    let at = folder(dir.path(), "at");
    let get = get(&at, &whole);
    let mut command = Command::new("sh");
    command.args(["-c", "echo >out.part.json.$$.new; exec \"$@\"", "sh"]).arg(get.as_std().get_program());
    command.args(get.as_std().get_args()).current_dir(&at).kill_on_drop(true);
    assert_eq!(run(command).await, (String::new(), Some(0)));
    assert_eq!(fs::read_to_string(at.join("out")).unwrap(), "two\n");
}

#[cfg(all(target_os = "linux", debug_assertions))]
mod at_the_very_moment {
    use super::*;

    /// A run that stops at that place.
    async fn stopped(dir: &Path, url: &str, place: &str) -> Program {
        let mut command = get(dir, url);
        command.env("H3CAST_FAULT", format!("{place}=stop"));
        let get = Program::of(command);
        crate::stopped(&get).await;
        get
    }

    #[tokio::test]
    async fn only_one_of_two_runs_writes() {
        let dir = tempfile::tempdir().unwrap();
        let (_serving, [live, whole, _]) = serving(dir.path()).await;
        let busy = |(told, code): (String, Option<i32>), what: &str| {
            assert!(told.contains("another program is writing") && told.contains("out.part"), "{what}: {told}");
            assert_eq!((told.lines().count(), code), (1, Some(2)), "{what}: {told}");
        };
        // The second one has seen nothing there before the first one begins.
        let at = folder(dir.path(), "second");
        let second = stopped(&at, &whole, "get-mark").await;
        let first = Program::of(get(&at, &live));
        until_written(&at).await;
        let before = snapshot(&at);
        second.signal("CONT");
        let (_, told, code) = second.end().await;
        busy((told, code), "get-mark");
        assert_eq!(snapshot(&at), before);
        first.kill().await;
        // The first one has its mark and no part yet, or has finished and its mark is still there.
        for place in ["get-marked", "get-finished"] {
            let at = folder(dir.path(), place);
            let first = stopped(&at, &whole, place).await;
            let before = snapshot(&at);
            busy(run(get(&at, &live)).await, place);
            assert_eq!(snapshot(&at), before, "{place}");
            first.signal("CONT");
            let (_, told, code) = first.end().await;
            assert_eq!((told.as_str(), code), ("", Some(0)), "{place}");
            let found = snapshot(&at);
            assert_eq!(found.keys().collect::<Vec<_>>(), ["out"], "{place}");
            assert_eq!(found["out"].2, b"two\n");
        }
    }

    #[tokio::test]
    async fn a_run_that_is_killed_while_it_tidies_up_hinders_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let (_serving, [_, whole, nothing]) = serving(dir.path()).await;
        for (url, place) in [(&nothing, "get-removed"), (&whole, "get-finished"), (&whole, "get-marked")] {
            let at = folder(dir.path(), place);
            stopped(&at, url, place).await.kill().await;
            assert_eq!(run(get(&at, &whole)).await, (String::new(), Some(0)), "{place}");
            let found = snapshot(&at);
            assert_eq!(found.keys().collect::<Vec<_>>(), ["out"], "{place}");
            assert_eq!(found["out"].2, b"two\n");
        }
    }
}
