//! Who a client is, and what it may do.

use std::fmt;

/// Who a client is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Principal {
    /// Nobody asked. Only clients of this machine are, unless the operator said otherwise.
    Anonymous,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Read,
    Write,
    Create,
    Delete,
    Describe,
}

/// To what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resource<'a> {
    Topic(&'a str),
    Group(&'a str),
    TransactionalId(&'a str),
    Cluster,
}

/// Whether it may. Every request asks this before it does anything.
pub(crate) fn authorize(principal: &Principal, _: Operation, _: Resource<'_>) -> bool {
    match principal {
        // There are no rules about somebody of whom nothing is known.
        Principal::Anonymous => true,
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("User:ANONYMOUS"),
        }
    }
}
