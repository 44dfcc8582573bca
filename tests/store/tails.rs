//! A file that is followed while servers come and go.

use std::{fs, io::Write};

use crate::{first, lines, next};

fn append(path: &std::path::Path, text: &str) {
    fs::File::options().create(true).append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

#[tokio::test]
async fn a_file_is_followed_from_where_the_killed_server_was() {
    let args = ["tail:app.log"];
    let (place, mut server) = first(&args).await;
    let log = place.folder().join("app.log");
    let mut all = Vec::new();
    for round in 0..6 {
        for number in 0..50 {
            let line = format!("round {round} line {number}\n");
            append(&log, &line);
            all.push(line);
        }
        // Of one that was begun, nothing is published before it is whole.
        append(&log, "beg");
        if round % 2 == 0 {
            assert_eq!(lines(&place, "/stream?from=start", all.len()).await, all, "round {round}");
        }
        server.kill();
        append(&log, &format!("un {round}\n"));
        all.push(format!("begun {round}\n"));
        if round == 3 {
            // Rotated while nobody looked.
            fs::rename(&log, place.folder().join("app.log.1")).unwrap();
            append(&log, "new file\n");
            all.push("new file\n".into());
        }
        server = next(&place, &args).await;
        assert_eq!(lines(&place, "/stream?from=start", all.len()).await, all, "round {round}");
    }
    server.kill();
    // What becomes of the rest of a file that is gone is not known, which is said.
    // The new one is there before, or it could have the same inode.
    let new = place.folder().join("new.log");
    append(&new, "after\n");
    fs::remove_file(&log).unwrap();
    fs::rename(&new, &log).unwrap();
    append(&place.folder().join("app.log.2"), "another\n");
    all.push("after\n".into());
    let server = next(&place, &args).await;
    assert_eq!(lines(&place, "/stream?from=start", all.len()).await, all);
    server.says("what was appended to it since then is not known");
    server.stop().await;
}
