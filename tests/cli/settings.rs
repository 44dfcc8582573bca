//! Settings of a file and of the environment.

use std::process::Command;

use super::{Running, output, text};

#[test]
fn a_file_of_settings_is_served_and_checked() {
    let dir = tempfile::tempdir().unwrap();
    let write = |text: &str| std::fs::write(dir.path().join("h3cast.toml"), text).unwrap();
    write("sources = [\"first=demo\", \"second=demo\"]\nlisten = \"localhost:0\"\nhttp = \"off\"\ncount = 3\n");
    let checked = output(dir.path(), &["serve", "--config", "h3cast.toml", "--check"]);
    assert_eq!((checked.status.code(), text(&checked.stdout)), (Some(0), "h3cast.toml: ok\n".into()));
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["h3cast.toml"], "a check writes nothing");
    for (arguments, expected) in [
        (&["--config", "h3cast.toml"] as &[&str], &["/stream/first", "/stream/second"] as &[&str]),
        // What stands on the command line takes the place of the file's.
        (&["serve", "--config=h3cast.toml", "third=demo"], &["/stream/third"]),
    ] {
        let running = Running::start(dir.path(), arguments);
        for feed in ["/stream/first", "/stream/second", "/stream/third"] {
            assert_eq!(running.announced.contains(feed), expected.contains(&feed), "{}", running.announced);
        }
    }

    for (settings, expected) in [
        ("count = 1\nlisten = \"nowhere\"", "h3cast.toml:2: --listen: `nowhere` is not an address to listen on"),
        (
            "count = 1\nrestart = true\nper-viewer = true",
            "h3cast.toml:3: --per-viewer cannot be used with --restart: leave one out",
        ),
        ("count = 1\ncert = \"missing.pem\"\nkey = \"missing.pem\"", "h3cast.toml:2: cannot read missing.pem"),
        ("count = 1\ncert = \"missing.pem\"", "h3cast.toml:2: `cert` needs --key PEM as well"),
        ("\ntokens = \"missing.txt\"", "h3cast.toml:2: --tokens: cannot read missing.txt"),
        ("\nstatic = \"missing\"", "h3cast.toml:2: missing is not a folder"),
        ("sources = [\"log=file:missing.log\"]", "cannot start the feed `log`: cannot read missing.log"),
        ("\npublic = \"log\"", "h3cast.toml:2: --public has no effect"),
        ("sources = [\"a=demo\", \"a=demo\"]", "two sources have the same name, `a`"),
        ("sources = [\n\"b=demo\",\n\"a=frob:x\"]", "h3cast.toml:3: invalid source `a=frob:x`"),
        ("proxy-protocol = \"tls\"", "h3cast.toml:1: `proxy-protocol` needs --trust-proxy"),
        ("listne = 1", "there is no setting `listne`: `listen` is one"),
    ] {
        write(settings);
        let refused = output(dir.path(), &["serve", "--config", "h3cast.toml", "--check"]);
        let error = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{settings}: {error}");
        assert!(error.contains(expected), "{settings}: {error}");
    }
    // A flag of the command line is not in the file.
    write("public = \"log\"");
    let refused = output(dir.path(), &["serve", "--config", "h3cast.toml", "--check", "--tokens", "missing.txt"]);
    assert!(text(&refused.stderr).contains("h3cast: --tokens: cannot read missing.txt"), "{}", text(&refused.stderr));
    let refused = output(dir.path(), &["serve", "--config", "elsewhere.toml", "--check"]);
    assert!(text(&refused.stderr).contains("cannot read elsewhere.toml"), "{}", text(&refused.stderr));
}

#[cfg(unix)]
#[test]
fn a_file_of_settings_that_others_can_read_or_change_is_warned_of() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("h3cast.toml");
    let warned = |settings: &str, mode| {
        std::fs::write(&file, settings).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        let checked = output(dir.path(), &["serve", "--config", "h3cast.toml", "--check"]);
        assert_eq!(checked.status.code(), Some(0), "{}", text(&checked.stderr));
        text(&checked.stderr)
    };
    let secret = "sources = [\"publish\"]\npublish-token = \"geheim-and-long-enough\"\n";
    let warning = warned(secret, 0o644);
    assert!(warning.contains("every user of this machine can read the secrets in h3cast.toml"), "{warning}");
    assert!(!warning.contains("geheim"), "{warning}");
    assert_eq!(warned(secret, 0o600), "");
    assert_eq!(warned("count = 1\n", 0o644), "");
    assert!(warned("count = 1\n", 0o646).contains("can replace what is in h3cast.toml: chmod o-w h3cast.toml"));
}

#[test]
fn a_misspelt_variable_is_warned_of() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_h3cast"));
    command.current_dir(dir.path()).env("H3CAST_LISTN", "localhost:1").args(["serve", "--check"]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("H3CAST_LISTN is not a setting, and has no effect: H3CAST_LISTEN is one"), "{text}");
}
