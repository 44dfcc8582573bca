//! The example as a reader runs it. `cargo test` builds it; `cargo test --test examples` alone needs
//! `cargo build -p h3cast-feed --examples` first.

use std::process::Command;

#[test]
fn feed_alone_tells_what_was_missed() {
    // `target/debug/deps/examples-…` knows where the others are.
    let folder = std::env::current_exe().unwrap().parent().unwrap().with_file_name("examples");
    let program = folder.join(format!("feed_alone{}", std::env::consts::EXE_SUFFIX));
    assert!(program.is_file(), "{} is not built: cargo build -p h3cast-feed --examples", program.display());
    let output = Command::new(program).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let (before, after) = text.split_once("resuming\n").unwrap();
    assert_eq!(before, "0: number 0\n1: number 1\n2: number 2\n");
    let mut lines = after.lines();
    let missing = lines.next().unwrap().strip_suffix(" chunks are missing").unwrap().parse::<u64>().unwrap();
    assert!((1..997).contains(&missing), "{missing}");
    for number in 3 + missing..1000 {
        assert_eq!(lines.next().unwrap(), format!("{number}: number {number}"));
    }
    assert_eq!((lines.next(), lines.next()), (Some("end: Clean"), None));
}
