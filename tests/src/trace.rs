//! What our crates log at `TRACE`, and what panics say, as bytes to search.
//!
//! One capture for the whole process: logs have no owner, so a test finds in it those of all tests that run
//! beside it.

use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tracing_subscriber::EnvFilter;

/// What was captured so far.
#[derive(Clone, Default)]
pub struct Trace(Arc<Mutex<Vec<u8>>>);

impl Trace {
    /// Starts to capture, where it has not yet begun.
    ///
    /// # Errors
    /// Where something else is the process's subscriber already: then nothing can be captured.
    pub fn start() -> anyhow::Result<Self> {
        static TRACE: OnceLock<Result<Trace, String>> = OnceLock::new();
        TRACE
            .get_or_init(|| Self::install().map_err(|error| error.to_string()))
            .clone()
            .map_err(anyhow::Error::msg)
    }

    fn install() -> anyhow::Result<Self> {
        let trace = Self::default();
        let writer = trace.clone();
        tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new("valetkey=trace"))
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .try_init()
            .map_err(anyhow::Error::from_boxed)?;
        let panics = trace.clone();
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            panics.append(format!("{panic}\n").as_bytes());
            before(panic);
        }));
        Ok(trace)
    }

    /// Everything so far.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn append(&self, bytes: &[u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(bytes);
    }
}

impl io::Write for Trace {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.append(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
