//! The file backend as its users and its other processes see it.

#![cfg(feature = "file")]

mod child;
mod directory;
mod exclusion;
mod fairness;
mod limits;
mod processes;
mod readers;
mod support;
mod tokens;
