//! What a server says when it does not start.

use std::path::Path;

use crate::program;

/// Starts a server that does not start; what it says of that.
pub(crate) async fn refused(dir: &Path, args: &[&str]) -> String {
    let all = [&["serve", "--listen", "localhost:0", "--http", "off"], args].concat();
    let output = program::output(dir, &all).await;
    let told = program::text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{told}");
    told
}
