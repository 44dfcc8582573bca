//! A program that the test has started, and can stop for a while.

use std::process::{Child, Command};

use crate::inside::tool;

/// Killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Running(Child);

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        Self(command.spawn().unwrap())
    }

    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.0
    }

    /// Has it do nothing, until [`cont`](Self::cont).
    pub(crate) fn stop(&self) {
        self.signal("STOP");
    }

    pub(crate) fn cont(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        tool("kill", &["-s", name, &self.0.id().to_string()]);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
