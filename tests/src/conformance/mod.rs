//! The store contract as a suite: every store passes the same cases.
//!
//! A store's tests implement [`Fixture`] and call [`store_conformance!`](crate::store_conformance)
//! once; each case becomes a test of its own, named as a sentence. A store in which a seq may
//! become visible after a later one also calls
//! [`late_commit_conformance!`](crate::late_commit_conformance).
//!
//! ```text
//! async fn fixture() -> MyFixture { … }          // a new, empty, migrated store
//! outbox_tests::store_conformance!(fixture);
//! outbox_tests::late_commit_conformance!(fixture);
//! ```

use std::sync::Arc;

use async_trait::async_trait;
use outbox_core::{Admin, Message, Store, StoreError};
use uuid::Uuid;

pub mod stage;

pub mod reading;
pub mod routing;
pub mod settling;

pub mod leasing;

pub mod waiting;

pub mod parking;
pub mod requesting;

pub mod operating;

pub mod copying;
pub mod importing;
pub mod refusing;
pub mod retaining;

pub mod late;
pub mod model;

/// What the suite needs of a store: one new, empty, migrated store, and ways to write to it as a
/// service would.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// The store as one relay process holds it.
    fn store(&self) -> Arc<dyn Store>;

    /// The store as an operator's tool holds it.
    fn admin(&self) -> Arc<dyn Admin>;

    /// The same store on connections of its own, as another process would hold it.
    async fn another_process(&self) -> (Arc<dyn Store>, Arc<dyn Admin>);

    /// Enqueues `messages` in one transaction and commits it.
    ///
    /// # Errors
    /// What enqueue said; then the transaction was rolled back.
    async fn enqueue(&self, messages: Vec<Message>) -> Result<Vec<Uuid>, StoreError>;

    /// Enqueues `messages` in one transaction and rolls it back.
    async fn enqueue_rolled_back(&self, messages: Vec<Message>) -> Result<(), StoreError>;

    /// Enqueues `messages` in a transaction that stays open. The store's other writers may have to
    /// wait until it ends.
    async fn enqueue_open(&self, messages: Vec<Message>) -> Result<Box<dyn Open>, StoreError>;

    /// Whether a seq may become visible after a later one has: then holes are gaps.
    fn commits_late(&self) -> bool;

    /// A byte-for-byte copy of the store at this moment, in another place: a restored dump, a
    /// clone, a copied file.
    async fn copied(&self) -> Box<dyn Fixture>;
}

/// A transaction that has enqueued and is still open.
#[async_trait]
pub trait Open: Send {
    /// Commits it.
    async fn commit(self: Box<Self>);
    /// Rolls it back.
    async fn roll_back(self: Box<Self>);
}

/// Makes every case of the suite a test. `$fixture` names an async function in scope that answers
/// a new [`Fixture`].
#[macro_export]
macro_rules! store_conformance {
    ($fixture:ident) => {
        $crate::conformance_cases! { $fixture,
            reading {
                messages_come_in_the_order_they_were_enqueued,
                messages_of_one_transaction_come_in_call_order,
                every_field_comes_back_as_it_was_enqueued,
                a_rolled_back_message_is_never_seen,
                a_page_ends_at_its_number_of_rows,
                a_page_ends_at_its_bytes_and_holds_at_least_one_message,
                a_message_larger_than_a_page_comes_behind_others_too,
                pages_are_read_ahead_of_settlements,
                an_empty_store_gives_an_empty_page,
                poll_says_yes_when_there_is_something_to_read,
                each_destination_reads_at_its_own_pace,
            }
            routing {
                a_destination_sees_only_the_topics_it_covers,
                a_change_of_patterns_takes_effect_at_the_last_seq,
                a_change_of_patterns_loses_nothing_for_a_session_that_is_open,
                a_new_destination_starts_at_the_beginning_by_default,
                a_new_destination_can_start_at_the_end,
                a_new_destination_can_start_at_a_time,
                a_start_has_no_effect_on_a_destination_that_exists,
                a_declaration_left_out_is_left_alone,
                declaring_the_same_again_changes_nothing,
                a_change_of_configuration_raises_the_control_version,
                a_message_that_no_route_covers_is_counted_once,
            }
            settling {
                a_settle_moves_the_cursor_and_never_back,
                a_settle_with_a_stale_epoch_changes_nothing,
                a_settle_after_the_release_changes_nothing,
                a_session_reads_on_from_the_cursor_when_it_reopens,
                a_session_reads_rows_keys_and_markers_when_it_reopens,
                a_row_is_replaced_by_a_later_one_of_its_seq,
                an_empty_settlement_writes_nothing,
                the_low_water_waits_for_what_is_still_to_be_sent,
                a_settlement_of_many_rows_is_written_whole,
            }
            leasing {
                a_lease_is_claimed_by_one_only,
                a_claim_on_what_was_seen_before_fails,
                the_epoch_grows_with_every_claim_and_only_then,
                a_released_lease_is_free_at_once,
                releasing_a_lost_lease_does_nothing,
                beats_grow_and_every_process_sees_them,
                a_paused_destination_is_claimed_by_nobody,
                a_session_does_not_open_on_a_lost_lease,
            }
            waiting {
                due_messages_come_earliest_first,
                due_says_when_the_next_one_is_due,
                due_ends_at_its_limit_and_says_what_is_next,
                a_scheduled_message_is_due_at_its_time,
                what_is_dead_expired_or_parked_is_never_due,
                a_due_message_brings_attempts_and_redelivery,
            }
            parking {
                parked_messages_come_in_order_for_each_key,
                parked_messages_end_at_the_limit_and_say_more,
                followers_behind_a_marker_are_read_again_from_the_log,
                followers_behind_a_marker_end_at_what_was_read,
                followers_with_rows_of_their_own_are_left_out,
                followers_of_other_keys_and_topics_are_left_out,
                parked_rows_go_before_the_marker,
                a_cleared_marker_is_gone,
                only_rows_that_block_count_as_blockers,
            }
            requesting {
                a_request_comes_to_the_leader_and_goes_when_applied,
                a_request_raises_the_control_version,
                a_request_brings_the_delivery_row,
                a_resend_of_a_sent_message_raises_its_redelivery,
                a_resend_of_a_dead_message_gives_it_fresh_attempts,
                a_discard_removes_the_row,
                an_unblock_keeps_the_row_and_frees_the_key,
                unknown_ids_are_not_counted,
                dead_messages_are_selected_by_window_and_state,
                a_window_selects_whatever_the_state,
                a_window_selects_only_what_the_destination_covers,
                a_request_of_many_messages_comes_in_bounded_parts,
                a_request_for_an_unknown_destination_names_those_that_exist,
            }
            operating {
                status_tells_cursor_backlog_and_exceptions,
                status_of_an_empty_store_is_empty,
                exceptions_are_filtered_and_paged,
                a_message_is_found_by_id_with_its_state_everywhere,
                an_unknown_message_is_not_found,
                the_doctor_finds_a_healthy_store_healthy,
                migrating_again_does_nothing,
                a_migrated_store_passes_its_check,
            }
            importing {
                an_import_enqueues_and_moves_its_position,
                an_import_from_a_wrong_position_writes_nothing,
                an_import_with_an_invalid_message_writes_nothing,
                imports_of_two_sources_do_not_meet,
                of_two_importers_at_once_one_is_refused,
            }
            copying {
                a_copy_does_not_open_until_it_is_adopted,
                an_adopted_copy_goes_on_where_the_original_stood,
                adopting_a_store_at_home_changes_nothing,
            }
            retaining {
                retention_never_removes_what_a_destination_still_needs,
                retention_never_removes_what_an_exception_still_needs,
                retention_never_removes_followers_of_a_marker,
                retention_keeps_what_is_young,
                seqs_are_not_used_again_after_retention,
            }
            refusing {
                a_topic_that_is_too_long_is_refused,
                a_topic_with_a_foreign_character_is_refused,
                an_empty_topic_is_refused,
                a_key_that_is_too_long_is_refused,
                an_empty_key_is_refused,
                a_payload_that_is_too_long_is_refused,
                a_content_type_that_is_too_long_is_refused,
                too_many_headers_are_refused,
                headers_that_are_too_long_are_refused,
                a_header_name_with_a_space_is_refused,
                a_nul_is_refused_wherever_text_is_due,
                a_message_that_expires_before_delivery_is_refused,
                a_batch_with_one_invalid_message_writes_nothing,
                messages_at_every_limit_are_accepted,
            }
            model {
                ten_thousand_messages_through_crashes_and_rollbacks_lose_nothing,
            }
        }
    };
}

/// Makes the cases of late commits tests: for stores whose [`Fixture::commits_late`] is true.
#[macro_export]
macro_rules! late_commit_conformance {
    ($fixture:ident) => {
        $crate::conformance_cases! { $fixture,
            late {
                a_late_commit_is_delivered_and_flagged,
                a_late_commit_is_delivered_after_a_crash,
                a_gap_of_a_rolled_back_transaction_closes,
                a_settled_late_message_does_not_come_again,
                an_open_transaction_delays_only_its_own_messages,
                the_low_water_waits_for_an_open_gap,
            }
        }
    };
}

/// One test for each case of each module.
#[doc(hidden)]
#[macro_export]
macro_rules! conformance_cases {
    ($fixture:ident, $($module:ident { $($case:ident,)* })*) => {
        $(mod $module {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let fixture = super::$fixture().await;
                    $crate::conformance::$module::$case(&fixture).await;
                }
            )*
        })*
    };
}

#[cfg(test)]
mod tests {
    /// A case that no list names would never run.
    #[test]
    fn every_case_is_in_a_list() {
        let lists = include_str!("mod.rs");
        let files = [
            include_str!("reading.rs"),
            include_str!("routing.rs"),
            include_str!("settling.rs"),
            include_str!("leasing.rs"),
            include_str!("waiting.rs"),
            include_str!("parking.rs"),
            include_str!("requesting.rs"),
            include_str!("operating.rs"),
            include_str!("importing.rs"),
            include_str!("copying.rs"),
            include_str!("retaining.rs"),
            include_str!("refusing.rs"),
            include_str!("late.rs"),
            include_str!("model.rs"),
        ];
        for file in files {
            let cases = file.split("pub async fn ").skip(1);
            for case in cases
                .filter_map(|text| text.split_once('('))
                .map(|(name, _)| name)
            {
                assert!(lists.contains(&format!(" {case},")), "{case} is in no list");
            }
        }
    }
}
