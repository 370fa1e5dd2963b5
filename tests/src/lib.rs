//! What the tests share: real servers, ledgers and the conformance suites.
