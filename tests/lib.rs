//! Holds nothing: the tests are in `e2e/`.
