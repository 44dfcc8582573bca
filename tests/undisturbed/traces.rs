//! What the program leaves for tools that look into its connections: traces of QUIC.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;

use super::{
    access::lines,
    server::{Server, program, until},
};

#[test]
fn what_a_short_get_leaves_is_whole_when_it_has_ended() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = program(&[]);
    command.stderr(fs::File::create(dir.path().join("stderr")).unwrap());
    let mut server = Server::start(command, &["--count", "1"]);
    let (keys, traces) = (dir.path().join("keys"), dir.path().join("traces"));
    let mut get = Command::new(env!("CARGO_BIN_EXE_h3cast"));
    get.args(["get", "--insecure", &format!("https://127.0.0.1:{}/stream", server.tls()), "--qlog"]).arg(&traces);
    // What writes them is slower than all else.
    get.env("SSLKEYLOGFILE", &keys).env("H3CAST_FAULT", "key log=pause,qlog=pause").env("HOME", dir.path());
    assert!(get.output().unwrap().status.success());
    let has = |label: &str| lines(&keys).iter().any(|line| line.starts_with(label));
    assert!(has("CLIENT_TRAFFIC_SECRET_0 ") && has("SERVER_TRAFFIC_SECRET_0 "), "{:?}", lines(&keys));
    let trace = fs::read_dir(&traces).unwrap().next().expect("a trace").unwrap().path();
    let trace = fs::read_to_string(trace).unwrap();
    assert!(trace.contains("packet_received") && trace.ends_with('\n'), "{trace}");
}

#[test]
fn traces_of_connections_are_what_qvis_reads() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, theirs) = (dir.path().join("server"), dir.path().join("client"));
    // What is not a trace stays.
    fs::create_dir(&ours).unwrap();
    fs::write(ours.join("notes.sqlog"), "mine").unwrap();
    let mut server = serve_demo(dir.path(), &ours);
    let url = format!("https://127.0.0.1:{}/stream", server.tls());
    for _ in 0..2 {
        let mut get = Command::new(env!("CARGO_BIN_EXE_h3cast"));
        get.args(["get", "--insecure", &url, "--qlog"]).arg(&theirs).env("HOME", dir.path()).stdout(Stdio::null());
        assert!(get.stderr(Stdio::null()).status().unwrap().success());
    }
    let names = |folder: &Path, side: &str| {
        let names = fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
        names.filter(|path| path.to_str().unwrap().ends_with(&format!("-{side}.sqlog"))).collect::<Vec<_>>()
    };
    for (folder, side) in [(&ours, "server"), (&theirs, "client")] {
        let whole = |path: &Path| fs::read_to_string(path).unwrap().contains("packet_received");
        until("a file for each connection", || names(folder, side).iter().filter(|path| whole(path)).count() == 2);
        for path in names(folder, side) {
            let text = fs::read_to_string(&path).unwrap();
            // The last record may not be whole yet.
            let records: Vec<Value> = text
                .split_inclusive('\n')
                .filter(|record| record.ends_with('\n'))
                .map(|record| serde_json::from_str(record.strip_prefix('\u{1e}').expect("RFC 7464")).unwrap())
                .collect();
            let (header, events) = records.split_first().unwrap();
            assert_eq!((&header["qlog_format"], &header["qlog_version"]), (&"JSON-SEQ".into(), &"0.3".into()));
            assert_eq!(header["trace"]["vantage_point"]["type"], side);
            assert_eq!(header["trace"]["common_fields"]["time_format"], "relative");
            assert!(header["trace"]["common_fields"]["reference_time"].as_u64().unwrap() > 1_700_000_000_000);
            for name in ["transport:packet_sent", "transport:packet_received", "recovery:metrics_updated"] {
                assert!(events.iter().any(|event| event["name"] == name), "{name}: {text}");
            }
            let sent = events.iter().find(|event| event["name"] == "transport:packet_sent").unwrap();
            assert_eq!(
                (&sent["data"]["header"]["packet_type"], &sent["data"]["header"]["packet_number"]),
                (&"initial".into(), &0.into()),
                "{sent}"
            );
            assert!(sent["data"]["header"]["length"].as_u64().unwrap() > 0 || side == "server", "{sent}");
            let times: Vec<f64> = events.iter().map(|event| event["time"].as_f64().unwrap()).collect();
            // Not always in order: a packet has the time at which it came, which may be before what is written of
            // sending meanwhile.
            assert!(times.iter().all(|time| (0.0..60_000.0).contains(time)), "{times:?}");
        }
    }
    // The id that both sides know of a connection is in the server's names.
    assert!(
        names(&ours, "server").iter().all(|path| path.file_name().unwrap().len() > 40),
        "{:?}",
        names(&ours, "server")
    );
    assert_eq!(fs::read_to_string(ours.join("notes.sqlog")).unwrap(), "mine");
}

#[test]
fn a_check_writes_nothing_and_finds_a_folder_that_cannot_be_used() {
    let dir = tempfile::tempdir().unwrap();
    let (keys, file) = (dir.path().join("keys"), dir.path().join("file"));
    fs::write(&file, "").unwrap();
    let ran = |traces: &Path, more: &[&str]| {
        let mut command = program(&[]);
        command.current_dir(dir.path()).env("SSLKEYLOGFILE", &keys).args(["--listen=localhost:0", "--http=off"]);
        let output = command.arg("--qlog").arg(traces).args(more).stderr(Stdio::piped()).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(ran(&dir.path().join("new/traces"), &["--check"]), (Some(0), String::new()));
    let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["file"]);
    for more in [&["--check"][..], &[]] {
        let (code, text) = ran(&file.join("traces"), more);
        assert!(code == Some(2) && text.contains("--qlog: cannot use"), "{code:?} {text}");
    }
}

fn serve_demo(dir: &Path, qlog: &Path) -> Server {
    let mut command = program(&[]);
    command.stderr(fs::File::create(dir.join("stderr")).unwrap());
    Server::start(command, &["--count", "3", "--interval", "5ms", "--qlog", qlog.to_str().unwrap()])
}
