//! End-to-end tests: the real binary, real servers, nothing mocked.

mod cli;
mod demo;
mod faults;
mod harness;
mod http;
mod layering;
