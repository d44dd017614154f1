//! A real Chromium without a window, with a profile of its own.

use crate::support::{Service, program, required, wait_until};
use std::cell::RefCell;
use std::path::PathBuf;

pub struct Chromium {
    program: String,
    rules: String,
    open: RefCell<Option<(Service, PathBuf)>>,
}

impl Chromium {
    /// `names` say which addresses names have in it, such as "MAP evil.example 127.0.0.1". None where there is no Chromium.
    pub fn new(names: &[&str]) -> Option<Chromium> {
        let found =
            program("chromium").ok_or("it is not installed (scripts/install-test-services installs it)".to_string());
        let program = required("Chromium", found)?.display().to_string();
        Some(Chromium {
            program,
            rules: format!("--host-resolver-rules={}", names.join(",")),
            open: RefCell::new(None),
        })
    }

    /// Opens a page, and keeps it open until the next one or the end.
    pub fn open(&self, url: &str) {
        let folder = tempfile::Builder::new().prefix("wing-chromium-").tempdir().expect("a folder can be made").keep();
        let profile = format!("--user-data-dir={}", folder.join("profile").display());
        let command = [
            &self.program,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-breakpad",
            "--disable-crash-reporter",
            "--disable-popup-blocking",
            // No authority that it knows has signed the nodes' certificates.
            "--ignore-certificate-errors",
            &self.rules,
            &profile,
            "--remote-debugging-port=0",
            url,
        ];
        self.close();
        *self.open.borrow_mut() = Some((Service::start(&folder, &command).expect("a shell starts"), folder));
    }

    /// Told to end, it ends its own processes first: nobody writes into the folder any more.
    fn close(&self) {
        if let Some((service, folder)) = self.open.borrow_mut().take() {
            service.stop(true);
            wait_until("the profile is gone", || {
                let _ = std::fs::remove_dir_all(&folder);
                !folder.exists()
            });
        }
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        self.close();
    }
}
