//! The examples, run as their readers would run them: as processes, over HTTP and SQL.

mod child;
mod http;
mod order_flow;
mod other_languages;
