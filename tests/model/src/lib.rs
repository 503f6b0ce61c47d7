//! The protocol of leased keys, which Redis' scripts and their client follow, in every order of events of
//! a small world: two clients, one of whose clocks loses a tick, one lock, one server that stalls, starts
//! again empty or from old data, or is replaced by its replica, and messages that are late, doubled or
//! lost; and, in worlds of their own, who is woken by a release, Sentinels, readers beside writers, and processes with
//! different leases. What the model says of times holds for all: only their order counts.
//!
//! A change of the protocol is made here first. Each rule has a control: without it, the promise that it
//! is for is seen to break.

#![cfg(test)]

mod carried;
mod client;
mod leases;
mod messages;
mod protocol;
mod readers;
mod rules;
mod sentinels;
mod server;

use std::hash::Hash;

use stateright::{Checker, HasDiscoveries, Model};

use messages::Messages;
use protocol::{Protocol, Scenario, promise};
use rules::Rule;

/// Every promise holds in every state, and the world is not empty: what can happen, happens.
fn holds(scenario: Scenario) {
    let checker = Protocol::new(scenario).checker().spawn_bfs().join();
    checker.assert_properties();
}

/// Whether this promise is broken in some state of the world.
fn is_broken<M>(world: M, promise: &'static str) -> bool
where
    M: Model<Action: Clone + PartialEq> + Send + Sync + 'static,
    M::State: Clone + Hash + PartialEq + Send + Sync + 'static,
{
    let checker = world
        .checker()
        .finish_when(HasDiscoveries::AllOf([promise].into()))
        .spawn_bfs()
        .join();
    checker.discovery(promise).is_some()
}

/// Without the rule, this promise is broken.
fn breaks(rule: Rule, scenario: Scenario, broken: &'static str) {
    let world = Protocol::without(rule, scenario);
    assert!(is_broken(world, broken), "{rule:?}: {broken}");
}

#[test]
fn the_promises_hold_while_the_server_lives() {
    holds(Scenario::Lives);
}

#[test]
fn the_promises_hold_when_the_server_starts_again_without_data() {
    holds(Scenario::StartsEmpty);
}

#[test]
fn the_promises_hold_when_the_server_starts_again_from_old_data() {
    holds(Scenario::StartsFromOldData);
}

#[test]
fn the_promises_hold_when_a_replica_takes_over() {
    holds(Scenario::IsReplaced);
}

#[test]
fn a_guard_counted_from_the_answer_outlives_its_lock() {
    breaks(Rule::ValidFromSending, Scenario::Lives, promise::EXCLUSION);
}

#[test]
fn without_a_margin_a_slow_clock_outlives_its_lock() {
    breaks(Rule::Margin, Scenario::Lives, promise::EXCLUSION);
}

#[test]
fn a_loss_that_a_late_answer_takes_back_makes_two_holders() {
    breaks(Rule::LossIsFinal, Scenario::Lives, promise::ONE_TERM);
}

#[test]
fn a_renewal_that_does_not_compare_keeps_what_is_anothers() {
    breaks(Rule::RenewalCompares, Scenario::Lives, promise::OWN);
}

#[test]
fn a_release_that_does_not_compare_removes_what_is_anothers() {
    breaks(Rule::ReleaseCompares, Scenario::Lives, promise::OWN);
}

#[test]
fn two_clients_with_the_same_owners_release_each_others_locks() {
    breaks(Rule::OwnersDiffer, Scenario::Lives, promise::OWN);
}

#[test]
fn a_request_without_an_end_takes_a_lock_long_after_it_was_sent() {
    breaks(Rule::NotAfter, Scenario::Lives, promise::NOT_STUCK);
}

#[test]
fn a_server_that_starts_empty_and_grants_makes_two_holders() {
    breaks(Rule::Quarantine, Scenario::StartsEmpty, promise::EXCLUSION);
    breaks(Rule::NoNote, Scenario::StartsEmpty, promise::EXCLUSION);
}

#[test]
fn a_server_that_believes_the_note_of_another_makes_two_holders() {
    for scenario in [Scenario::StartsFromOldData, Scenario::IsReplaced] {
        breaks(Rule::Identity, scenario, promise::EXCLUSION);
    }
}

#[test]
fn a_replica_that_takes_over_without_a_note_makes_two_holders() {
    breaks(Rule::OnceAReplica, Scenario::IsReplaced, promise::EXCLUSION);
}

#[test]
fn a_replica_that_believes_its_note_of_an_earlier_time_makes_two_holders() {
    breaks(Rule::OfThisReign, Scenario::IsReplaced, promise::EXCLUSION);
}

#[test]
fn a_quarantine_that_begins_again_at_each_look_never_ends() {
    breaks(
        Rule::QuarantineOnce,
        Scenario::StartsFromOldData,
        promise::NOT_STUCK,
    );
}

#[test]
fn tokens_of_a_server_whose_clock_is_behind_go_back() {
    breaks(Rule::TokensAhead, Scenario::IsReplaced, promise::TOKENS);
}

#[test]
fn tokens_of_a_replica_that_lacks_the_last_grants_go_back() {
    breaks(Rule::TokensLacked, Scenario::IsReplaced, promise::TOKENS);
}

#[test]
fn tokens_of_a_replica_without_a_note_go_back_where_the_first_were_ahead() {
    breaks(
        Rule::TokensTwiceAhead,
        Scenario::IsReplaced,
        promise::TOKENS,
    );
}

#[test]
fn no_client_sleeps_beside_a_lock_that_is_free() {
    let checker = Messages::new(None).checker().spawn_bfs().join();
    checker.assert_properties();
}

#[test]
fn a_rule_of_messages_that_is_left_out_lets_a_client_sleep() {
    use messages::Rule;
    for rule in [
        Rule::RefusalMarks,
        Rule::EachRefusalMarks,
        Rule::TriesOnceSubscribed,
        Rule::SubscribesAgain,
    ] {
        let broken = messages::promise::AWAKE;
        let world = Messages::new(Some(rule));
        assert!(is_broken(world, broken), "{rule:?}");
    }
}
