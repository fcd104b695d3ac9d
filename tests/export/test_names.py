"""The names, types and labels that users' dashboards depend on. A change here is a breaking change."""

from __future__ import annotations

from tokenwatt.export.families import FAMILIES

NAMES = """
counter gpu_energy_joules_total                  gpu uuid
counter energy_joules_total                      server model state
counter unattributed_energy_joules_total         gpu uuid
counter node_energy_joules_total                 component
counter server_host_energy_joules_total          server model
counter tokens_total                             server model kind
counter cost_total                               server model component currency
counter unattributed_cost_total                  component currency
counter carbon_grams_total                       server model
counter gpu_energy_resets_total                  gpu uuid
counter gpu_rejected_readings_total              gpu uuid
counter samples_missed_total                     gpu uuid
counter server_resets_total                      server
counter server_rejected_readings_total           server
gauge   tokens_per_joule                         server model tokens window
gauge   cost_per_million_tokens                  server model tokens basis window currency
gauge   tokens_per_second                        server model kind window
gauge   power_watts                              server model window
gauge   idle_energy_ratio                        server window
gauge   coverage_ratio                           server window
gauge   gpu_up                                   gpu uuid
gauge   gpu_info                                 gpu uuid name driver pci_bus_id
gauge   gpu_power_watts                          gpu uuid
gauge   gpu_power_limit_watts                    gpu uuid
gauge   gpu_utilization_ratio                    gpu uuid
gauge   gpu_memory_used_bytes                    gpu uuid
gauge   gpu_memory_total_bytes                   gpu uuid
gauge   gpu_temperature_celsius                  gpu uuid
gauge   gpu_sm_clock_hertz                       gpu uuid
gauge   gpu_clock_event_active                   gpu uuid reason
gauge   gpu_energy_source_info                   gpu uuid source scope
gauge   gpu_energy_agreement_ratio               gpu uuid
gauge   last_sample_timestamp_seconds            gpu uuid
gauge   pending_energy_joules                    server
gauge   server_up                                server
gauge   server_info                              server engine version update cached scope
gauge   server_group_info                        server group
gauge   server_requests_running                  server
gauge   server_requests_waiting                  server
gauge   server_gpu_info                          server gpu uuid method
gauge   server_last_sample_timestamp_seconds     server
gauge   server_scrape_duration_seconds           server
gauge   server_scrape_bytes                      server
gauge   simulated
gauge   config_last_reload_successful
gauge   store_up
gauge   build_info                               version python ring
"""


def test_names_types_and_labels_are_the_frozen_ones() -> None:
    frozen = {f"tokenwatt_{name}": (type_, labels) for type_, name, *labels in map(str.split, NAMES.strip().splitlines())}
    assert {f.name: (f.type, list(f.labels)) for f in FAMILIES} == frozen
    assert len(FAMILIES) == len(frozen), "a family is there twice"
