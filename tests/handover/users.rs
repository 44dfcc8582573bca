//! Servers of other users: neither hands over to the other. Needs root, to start one as another user;
//! without that, what everyone can try is tested, and it is said aloud that the rest was not.

use std::{
    io::Write,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    process::Command,
};

use crate::process::{Place, Process, publish};

/// A user that owns nothing.
const NOBODY: u32 = 65534;

/// The program as another user, who may not enter the folder that it is in; `None` without the right to that.
fn as_nobody(folder: &Path) -> Option<Command> {
    if !rustix::process::geteuid().is_root() {
        // Past what the test harness captures: these tests pass without that.
        let text = "WARNING: tests/handover/users.rs did NOT test servers of other users, which only root can start\n";
        std::io::stderr().write_all(text.as_bytes()).unwrap();
        return None;
    }
    std::os::unix::fs::chown(folder, Some(NOBODY), Some(NOBODY)).unwrap();
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).unwrap();
    let program = folder.join("program");
    if !program.exists() {
        let built = env!("CARGO_BIN_EXE_h3cast");
        std::fs::hard_link(built, &program).or_else(|_| std::fs::copy(built, &program).map(drop)).unwrap();
    }
    let mut command = Command::new(program);
    command.uid(NOBODY).gid(NOBODY);
    Some(command)
}

/// What everyone can try: a socket is for its user alone, and that one is let in.
async fn of_one_user(place: &Place, mut first: Process) {
    let mode = std::fs::metadata(place.control()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut second = place.next(&["publish"]);
    second.ready().await;
    first.ended(0).await;
    second.stop().await;
}

/// It could hand over sockets that it reads along, and chunks of its own making.
#[tokio::test]
async fn a_server_of_another_user_is_not_taken_over() {
    let place = Process::place(Some("control.sock".into()));
    let Some(command) = as_nobody(place.folder()) else {
        let (place, first) = Process::first(&["publish"]).await;
        return of_one_user(&place, first).await;
    };
    let (place, first) = Process::begin(place, command, &["publish"]).await;
    let cursor = publish(&place, "a").await;
    let mut second = place.next(&["publish", "--certs=of-root"]);
    second.ended(1).await;
    second.says("it is of user 65534, and this one of user 0");
    assert_eq!(publish(&place, "b").await.seq, cursor.seq + 1);
    first.stop().await;
}

/// In a folder that several users have, those of others are passed over.
#[tokio::test]
async fn a_server_of_another_user_is_not_found() {
    let place = Process::place(None);
    let Some(command) = as_nobody(place.folder()) else {
        let (place, first) = Process::first(&["publish"]).await;
        return of_one_user(&place, first).await;
    };
    let (place, first) = Process::begin(place, command, &["publish"]).await;
    let mut second = place.next(&["publish", "--certs=of-root"]);
    second.ended(2).await;
    second.says("it is of user 65534, and this one of user 0");
    second.says("found no running server of this user to take over from");
    second.says("is in use by another program");
    assert_eq!(publish(&place, "a").await.seq, 0);
    first.stop().await;
}

/// Also where the mode of the socket does not keep it out.
#[tokio::test]
async fn another_user_does_not_take_over() {
    let (place, first) = Process::first(&["publish"]).await;
    let Some(command) = as_nobody(place.folder()) else { return of_one_user(&place, first).await };
    let refused = async |command, said: &str| {
        let mut second = place.start_by(command, &["publish", "--certs=of-nobody", "--take-over"], "");
        second.ended(1).await;
        second.says(said);
    };
    refused(command, "Permission denied").await;
    std::fs::set_permissions(place.control(), std::fs::Permissions::from_mode(0o666)).unwrap();
    refused(as_nobody(place.folder()).unwrap(), "does not hand over").await;
    assert_eq!(publish(&place, "a").await.seq, 0);
    std::fs::set_permissions(place.control(), std::fs::Permissions::from_mode(0o600)).unwrap();
    of_one_user(&place, first).await;
}
