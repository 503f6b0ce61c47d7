//! The one list of the cases.

/// A case of the suite.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// The module that it is in.
    pub topic: &'static str,
    /// What it says.
    pub name: &'static str,
    /// The promises that it checks, as the README of the tests numbers them.
    pub promises: &'static [u32],
}

/// Makes the suite the tests of each of these stores: `conformance! { memory: MemoryStore, .. }`
/// gives a module `memory` with one `#[test]` a case.
///
/// `conformance!(@cases @inventory [])` gives the list itself.
#[macro_export]
macro_rules! conformance {
    (@cases @$then:ident [$($with:ty)?]) => {
        $crate::conformance! {
            @$then [$($with)?]
            exclusion {
                a_held_name_cannot_be_taken_and_can_be_after_its_release [1]
                another_name_can_be_taken_meanwhile [1]
                two_clients_are_never_inside_together [5]
                two_providers_over_one_backend_object_exclude_each_other [5]
                a_client_that_always_has_waiters_of_its_own_starves_nobody [5]
                acquiring_again_in_the_same_task_waits_like_any_other_caller [11]
            }
            waiting {
                a_try_without_a_wait_is_refused_at_once [2]
                a_refusal_comes_when_the_wait_is_over_and_not_before [2]
                a_wait_is_served_when_the_holder_releases_within_it [3]
                a_hundred_tasks_are_served_one_by_one_in_the_order_of_their_calls [4]
                an_acquire_that_is_dropped_while_it_waits_leaves_the_line [8]
                zero_tiny_and_maximal_waits_behave [9]
                zero_tiny_and_maximal_holds_behave [9]
            }
            hand_over {
                tokens_grow_from_holder_to_holder_in_order [4 23]
                a_hold_is_over_before_the_next_one_is_valid [6 20]
                a_loss_between_hand_overs_ends_one_hold [19 23]
                each_holder_has_a_time_of_its_own_to_hold [9]
                a_caller_that_leaves_at_a_hand_over_passes_it_on [8]
                what_a_sleeping_task_was_handed_is_released_in_time [5 8]
                tasks_that_hand_over_let_another_client_go_first [5]
                a_shutdown_amid_hand_overs_frees_the_lock [27]
            }
            leaving {
                acquires_that_are_dropped_at_random_times_leak_nothing [8]
                runtimes_that_end_in_the_middle_of_an_acquire_leak_nothing [8]
            }
            ownership {
                what_is_left_of_a_released_guard_does_not_touch_the_next [6]
                a_guard_of_an_earlier_acquisition_never_releases_a_later_one [6]
                the_release_of_a_lock_that_was_lost_is_an_error [10]
            }
            dropping {
                a_guard_that_is_dropped_in_a_task_releases [7]
                a_guard_that_is_dropped_outside_of_a_runtime_releases [7]
                a_guard_that_is_dropped_by_a_panic_releases [7]
                a_guard_whose_task_is_aborted_releases [7]
                a_guard_whose_runtime_ends_releases [7]
            }
            loss {
                a_loss_fires_once_and_stays [19]
                protected_work_is_dropped_when_the_lock_is_lost [19]
                work_that_ends_after_its_lock_was_lost_is_lost [10 19]
                a_release_fires_no_loss [20]
                a_cancellation_token_fires_at_the_loss_and_not_at_a_release [19 20]
                a_lost_guard_that_is_kept_frees_its_lock_for_callers_who_only_try [2 19]
                a_guard_that_is_held_for_five_leases_is_not_lost [21]
                the_loss_of_everything_is_seen_by_every_guard [22]
            }
            tokens {
                tokens_grow_over_a_thousand_acquisitions_from_four_clients [23]
                a_guard_has_one_token_however_often_it_is_asked [23]
                a_token_is_refused_after_the_loss [23]
                no_two_holds_of_a_lock_have_one_token_also_after_a_loss [23]
            }
            wakers {
                a_waker_that_panics_costs_no_lock_and_no_answer [22]
            }
            many {
                all_of_several_locks_are_taken_each_once [24]
                no_names_at_all_are_refused [24 25]
                all_or_none_when_one_of_them_is_held [24]
                opposite_orders_never_deadlock [24]
                a_claim_gives_what_is_free_up_to_the_limit [25]
                claims_from_two_clients_share_the_names_without_an_overlap [25]
            }
            closing {
                a_shutdown_closes_the_connections_whatever_clones_and_guards_live [27]
                the_last_of_several_providers_over_one_backend_closes_it [27]
                a_shutdown_that_was_cancelled_or_is_called_again_closes_as_well [27]
            }
            crowd {
                ten_thousand_guards_are_held_at_once [26]
                ten_thousand_waiters_on_one_name_are_served [26]
                ten_thousand_waiters_on_ten_thousand_names_are_served [26]
                five_thousand_waiters_outlast_the_loss_of_everything [22 26]
            }
            holding {
                a_lock_names_its_holder_while_it_is_held [28]
                a_lock_that_is_waited_for_names_its_holder_and_then_the_next [28]
                holders_of_many_locks_are_told_apart [28]
                a_holder_in_another_process_is_named_until_its_end [28]
                who_holds_a_lock_is_not_told_after_a_shutdown [28]
            }
            listing {
                held_locks_are_listed_and_released_ones_are_not [31]
                a_lock_that_is_awaited_is_listed_as_such [31]
                a_lock_that_was_only_tried_is_not_listed_as_awaited [31]
                a_writer_that_waits_is_not_listed [31]
                the_slots_of_permits_are_listed [29 31]
                a_lock_that_is_kept_is_listed [31]
                a_listing_has_no_more_than_its_limit [31]
                nothing_is_listed_after_a_shutdown [31]
            }
            permits {
                so_many_hold_it_at_a_time_and_no_more [29]
                tries_that_meet_find_a_permit_each [29]
                two_clients_and_many_tasks_are_never_more_than_so_many [5 29]
                a_waiter_is_served_by_whichever_slot_is_freed [29]
                each_permit_has_a_token_of_its_slot [23 29]
                the_loss_of_one_permit_leaves_the_others [19 29]
                a_client_with_fewer_permits_shares_the_first_slots [29]
                permits_of_a_process_that_is_killed_are_granted [17 29]
            }
            at_least {
                a_released_lock_stays_closed_until_its_time [30]
                a_waiter_is_granted_a_kept_lock_when_its_time_is_over [3 30]
                a_lock_that_is_held_longer_is_free_after_its_release [30]
                a_kept_lock_that_is_lost_is_free [30]
                a_permit_is_kept_as_a_lock_is [29 30]
                a_process_keeps_what_it_has_released [16 30]
                what_a_process_keeps_that_is_killed_ends_with_it_or_in_time [17 30]
                late_timers_do_not_run_a_short_job_again [16 30]
            }
            readers {
                readers_hold_it_together_and_never_with_a_writer [32]
                tries_of_readers_that_meet_are_all_granted [2 32]
                readers_and_writers_are_never_inside_together [5 32]
                a_writer_that_waits_keeps_new_readers_out [32]
                readers_go_on_when_the_writer_gives_up_that_kept_them_out [3 8 32]
                a_writer_is_served_when_the_last_reader_releases [3 32]
                many_readers_of_two_clients_hold_it_at_once [32]
                a_reader_that_is_lost_says_so_and_lets_a_writer_in [19 32]
                a_reader_whose_process_is_killed_lets_a_writer_in [17 32]
                a_writer_whose_process_is_killed_while_it_waits_lets_readers_in [17 32]
                a_reader_that_is_dropped_lets_a_writer_in [7 32]
                readers_and_writers_that_leave_at_any_time_leak_nothing [8 32]
                tokens_of_writers_grow_across_readers_which_have_none [23 32]
                readers_are_named_and_listed_as_such [28 31 32]
                a_shutdown_waits_for_readers_and_takes_the_lock_from_those_that_stay [27 32]
            }
            names {
                every_name_that_is_accepted_works [12]
                names_that_differ_in_the_last_byte_or_in_case_are_different [12]
                a_name_is_made_the_same_in_every_process [14]
            }
            processes {
                a_lock_that_a_child_holds_cannot_be_had_until_the_child_releases_it [16]
                the_lock_of_a_child_that_ends_without_a_release_is_granted [17]
                the_lock_of_a_child_that_is_killed_is_granted [17]
                a_program_that_the_holder_started_does_not_keep_its_lock [17]
                a_waiting_child_and_a_waiting_parent_are_each_served_when_the_other_releases [18]
                processes_that_hammer_a_few_names_are_never_inside_together [5 16 23]
            }
        }
    };
    (@tests [$store:ty] $($topic:ident { $($case:ident [$($promise:literal)+])+ })+) => {
        $(
            mod $topic {
                $(
                    #[test]
                    fn $case() {
                        $crate::run::<$store, _>(
                            env!("CARGO_BIN_EXE_locker"),
                            stringify!($case),
                            $crate::cases::$topic::$case,
                        );
                    }
                )+
            }
        )+
    };
    (@inventory [] $($topic:ident { $($case:ident [$($promise:literal)+])+ })+) => {
        &[
            $($($crate::Case {
                topic: stringify!($topic),
                name: stringify!($case),
                promises: &[$($promise),+],
            },)+)+
        ]
    };
    ($($backend:ident: $store:ty),+ $(,)?) => {
        $(
            mod $backend {
                $crate::conformance!(@cases @tests [$store]);
            }
        )+
    };
}
