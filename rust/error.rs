//! The error type of the core; each kind is an exception class of `fewbit.errors`.

use std::fmt;

/// What went wrong, in words, with the next step where there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// Which exception class Python raises.
    pub kind: Kind,
    /// Lower case, names the thing, what was expected and what was found.
    pub message: String,
    /// What to do next, without the `hint: ` in front.
    pub hint: Option<String>,
}

/// The classes of `fewbit.errors`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `FormatError`
    Format,
    /// `ShapeError`
    Shape,
    /// `UnsupportedError`
    Unsupported,
    /// `InputError`
    Input,
    /// Python's `MemoryError`
    Memory,
    /// Python's `OSError` with this number
    System(i32),
}

/// The core's result.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of class `FormatError`.
    pub fn format(message: impl Into<String>) -> Self {
        Self::new(Kind::Format, message)
    }

    /// An error of class `ShapeError`.
    pub fn shape(message: impl Into<String>) -> Self {
        Self::new(Kind::Shape, message)
    }

    /// An error of class `UnsupportedError`.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(Kind::Unsupported, message)
    }

    /// An error of class `InputError`.
    pub fn input(message: impl Into<String>) -> Self {
        Self::new(Kind::Input, message)
    }

    /// No memory for `bytes` bytes.
    pub fn memory(bytes: usize) -> Self {
        Self::new(Kind::Memory, format!("no memory for {bytes} bytes"))
    }

    /// What the operating system refused.
    #[allow(clippy::needless_pass_by_value)] // what `map_err` hands on
    pub fn system(error: std::io::Error) -> Self {
        Self::new(Kind::System(error.raw_os_error().unwrap_or(0)), error.to_string())
    }

    /// A thread of the parent had `what` at the fork, and no thread of the child can give it back.
    pub fn held_at_fork(what: &str) -> Self {
        Self::input(format!("a thread used {what} when this process was forked"))
            .hint("make a new one in the child, or fork while no other thread computes")
    }

    /// The same error with a next step.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}
