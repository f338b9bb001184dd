//! The same matrix for every backend: tests of other modules, with netd writing its rules by iptables.

use crate::host::{BACKEND, Backend};

macro_rules! with_backend {
    ($module:ident, $backend:expr, { $($from:ident: $($test:ident),+;)+ }) => {
        mod $module {
            use super::*;
            $($(
                #[test]
                fn $test() {
                    BACKEND.set($backend);
                    crate::$from::$test();
                }
            )+)+
        }
    };
}

macro_rules! matrix {
    ($tests:tt) => {
        with_backend!(iptables_nft, Backend::IptablesNft, $tests);
        with_backend!(iptables_legacy, Backend::IptablesLegacy, $tests);
    };
}

matrix!({
    reach: containers_of_a_network_reach_each_other_and_the_world_through_nat, networks_are_apart_and_nobody_routes_in, an_internal_network_leads_nowhere, containers_without_icc_reach_the_world_but_not_each_other, containers_do_not_reach_the_hosts_loopback, ipv6_is_dual_stack_with_nat, none_has_loopback_only_and_host_is_left_alone, networks_come_and_go_while_a_container_runs;
    ports: a_port_answers_from_outside_from_localhost_and_from_containers, a_port_of_the_loopback_is_not_open_to_neighbours, a_port_in_use_names_its_holder_and_changes_nothing, random_ports_and_ranges_are_chosen, a_udp_client_that_goes_on_sending_follows_a_published_port,
        sctp_ports_are_forwarded_and_kept_apart;
    relay: a_port_answers_at_the_ipv6_loopback_also_for_a_container_without_ipv6, a_dual_stack_port_is_redirected_but_at_the_loopback;
    strangers: a_host_that_forwards_for_containers_does_not_for_strangers, a_host_that_forwarded_before_goes_on_for_that_ip_version, what_somebody_adds_against_the_guard_is_drift, a_note_that_is_lost_is_written_again_and_leaves_the_host_guarded, bridges_and_pairs_that_others_make_later_are_theirs_to_guard, frames_that_only_cross_a_bridge_are_not_forwarded_for_strangers;
    modes: a_routed_network_opens_published_ports_at_the_containers_own_address, an_unprotected_network_is_open_to_the_outside_but_not_to_other_networks, sources_are_hidden_behind_the_address_that_was_chosen, without_icc_containers_do_not_meet_over_the_gateway_either, an_isolated_bridge_has_no_address;
    check: a_sound_host_has_no_drift;
    explain: stops_say_where_and_what_to_do;
    lifecycle: nothing_is_left_after_the_last_container, a_killed_daemon_comes_back_to_working_containers, a_stopped_daemon_leaves_containers_wired_and_a_dead_host_is_cleaned;
    policy: only_what_is_allowed_passes_in_both_ip_versions, a_policy_survives_a_kill_and_a_flush;
    policies: containers_pass_an_iptables_policy_of_drop, containers_pass_a_legacy_iptables_policy_of_drop,
        rules_come_back_after_a_flush, containers_pass_a_policy_of_drop_of_any_table;
});
