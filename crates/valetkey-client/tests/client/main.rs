//! The client from outside, against a broker that says what the test tells it to.

#![cfg(test)]

mod lease;
mod scripted;
mod stream;
