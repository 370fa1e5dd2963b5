//! The figures: each benchmark prints what it compared with in the same run.

fn main() {}
