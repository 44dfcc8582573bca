//! `h3cast health`: what it asks, and what it reports.

use std::{
    net::UdpSocket,
    process::Command,
    time::{Duration, SystemTime},
};

use crate::{said, serving::Serving, write};

/// The exit code, and what is said, for a server's user in its folder.
fn health(server: &Serving, arguments: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_h3cast"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("H3CAST_")) {
        command.env_remove(name);
    }
    // Where no note of its is found.
    command.env("HOME", server.dir().join("elsewhere")).env_remove("XDG_RUNTIME_DIR").env_remove("XDG_STATE_HOME");
    let output = command.current_dir(server.dir()).arg("health").args(arguments).envs(environment.iter().copied());
    let output = output.output().unwrap();
    (output.status.code(), said(&output))
}

#[test]
fn it_asks_the_server_that_has_the_same_settings() {
    let server = Serving::start(|_| ["demo", "--certs", "own"].to_vec());
    let port = server.port;
    let (localhost, everywhere) = (format!("localhost:{port}"), format!("0.0.0.0:{port}"));
    let ready = |host: &str| (Some(0), format!("https://{host}:{port}/readyz: ready\n"));
    let by_flags = ["--listen", &localhost, "--certs", "own"];
    assert_eq!(health(&server, &by_flags, &[]), ready("localhost"));
    let by_environment = [("H3CAST_LISTEN", &*everywhere), ("H3CAST_CERTS", "own")];
    assert_eq!(health(&server, &[], &by_environment), ready("127.0.0.1"));
    write(server.dir(), "h3cast.toml", &format!("listen = '{localhost}'\ncerts = 'own'\nsources = ['demo']\n"));
    assert_eq!(health(&server, &["--config", "h3cast.toml"], &[]), ready("localhost"));
    // By its URL, whatever page of it that is.
    let url = format!("https://localhost:{port}/stream?from=start");
    let (code, text) = health(&server, &[&url, "--certs", "own", "--live"], &[]);
    assert_eq!((code, text), (Some(0), format!("https://localhost:{port}/healthz: ok\n")));
    // Whatever other server the environment is for.
    let other = [("H3CAST_LISTEN", "localhost:1"), ("H3CAST_HTTP", "off"), ("H3CAST_CONFIG", "nowhere.toml")];
    assert_eq!(health(&server, &[&url, "--certs", "own"], &other), ready("localhost"));
    // A server that another certificate is expected of is not that one.
    write(server.dir(), "h3cast.toml", &format!("listen = '{localhost}'\n"));
    let (code, text) = health(&server, &["--config", "h3cast.toml"], &[]);
    assert!(code == Some(1) && text.contains("not trusted"), "{text}");
    server.stop();
}

/// Clients refuse it, so that it serves no one; a restart would not help.
#[test]
fn a_server_whose_certificate_has_expired_is_not_ready_and_alive() {
    let server = Serving::start(|dir| {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        let (now, day) = (SystemTime::now(), Duration::from_secs(86_400));
        (params.not_before, params.not_after) = ((now - 2 * day).into(), (now - day).into());
        write(dir, "cert.pem", &params.self_signed(&key).unwrap().pem());
        write(dir, "key.pem", &key.serialize_pem());
        vec!["demo", "--cert", "cert.pem", "--key", "key.pem"]
    });
    let settings = format!("listen = 'localhost:{}'\ncert = 'cert.pem'\nkey = 'key.pem'\n", server.port);
    write(server.dir(), "h3cast.toml", &settings);
    let (code, text) = health(&server, &["--config", "h3cast.toml"], &[]);
    assert!(code == Some(1) && text.contains("the certificate cert.pem: it expired on "), "{text}");
    let (code, text) = health(&server, &["--config", "h3cast.toml", "--live"], &[]);
    assert_eq!(code, Some(0), "{text}");
    server.stop();
}

#[test]
fn a_server_that_shuts_down_is_not_ready_and_alive() {
    let server = Serving::start(|_| ["demo", "--drain", "60s"].to_vec());
    let listen = format!("localhost:{}", server.port);
    let arguments = ["--listen", &listen, "--certs", "certs"];
    server.terminate();
    let text = loop {
        let (code, text) = health(&server, &arguments, &[]);
        if code == Some(1) {
            break text;
        }
    };
    assert!(text.contains("/readyz: 503: server: it is stopping"), "{text}");
    assert_eq!(health(&server, &[&arguments[..], &["--live"]].concat(), &[]).0, Some(0));
}

#[test]
fn whatever_is_wrong_the_exit_code_is_1() {
    let server = Serving::start(|_| ["demo"].to_vec());
    // It takes what is sent to it, and answers nothing.
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().unwrap().to_string();
    write(server.dir(), "wrong.toml", "listen = 1\nlisten = 2");
    for (arguments, expected) in [
        (&["--insecure", "--timeout", "300ms", "--listen", &silent][..], "no answer within 300ms"),
        (&["http://127.0.0.1:1"], "cannot ask http://127.0.0.1:1/readyz: "),
        (&["http://127.0.0.1:1", "--listen=localhost:2"], "--listen is for the server on this machine"),
        (&["--listen", "localhost:0"], "--listen has port 0"),
        (&["--config", "wrong.toml"], "wrong.toml:2: not valid TOML"),
        (&["--config", "nowhere.toml"], "--config: cannot read nowhere.toml"),
    ] {
        let (code, text) = health(&server, arguments, &[]);
        assert!(code == Some(1) && text.contains(expected), "{arguments:?}: {text}");
    }
}
