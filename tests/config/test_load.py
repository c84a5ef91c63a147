"""Reading configuration files, relocd's own and xend's."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from relocd.config import AcceleratorChoice, Compression, Config, LogLevel
from relocd.config.keys import BY_NAME
from relocd.config.load import load_config
from relocd.config.model import MIB, FirewallMode, L2Mode, TlsMode
from relocd.config.xend import WITHOUT_MEANING
from relocd.errors import ConfigError


def read(text: str) -> Config:
    loaded = load_config(text, source="f")
    assert loaded.warnings == ()
    return loaded.config


def warnings(text: str) -> tuple[str, ...]:
    return load_config(text, source="f").warnings


def test_an_empty_file_is_the_default() -> None:
    assert read("") == Config()
    assert read("# nothing\n") == Config()


VALUES: list[tuple[str, str, Any]] = [
    ("(xen-relocation-server no)", "relocation_server", False),
    ("(xen-relocation-port 8102)", "relocation_port", 8102),
    ("(xen-relocation-port '8102')", "relocation_port", 8102),
    ("(xen-relocation-address 192.0.2.1)", "relocation_address", "192.0.2.1"),
    ("(xen-relocation-address 'fe80::1%eth0')", "relocation_address", "fe80::1%eth0"),
    ("(xen-relocation-address '')", "relocation_address", ""),
    ("(xen-relocation-address )", "relocation_address", ""),
    ("(xen-relocation-hosts-allow '')", "hosts_allow", ()),
    ("(xen-relocation-firewall off)", "firewall", FirewallMode.OFF),
    ("(xen-relocation-firewall Manage)", "firewall", FirewallMode.MANAGE),
    ("(xen-relocation-hosts-allow)", "hosts_allow", ()),
    ("(xen-relocation-hosts-allow ())", "hosts_allow", ()),
    ("(xen-relocation-hosts-allow .*)", "hosts_allow", (".*",)),
    ("(xen-relocation-hosts-allow ' ^a$ \t ^b$\n^c$ ')", "hosts_allow", ("^a$", "^b$", "^c$")),
    ("(xen-relocation-hosts-allow ^a$ '^b$ ^c$')", "hosts_allow", ("^a$", "^b$", "^c$")),
    ("(xen-relocation-hosts-allow ('^a$' '^b$'))", "hosts_allow", ("^a$", "^b$")),
    (r"(xen-relocation-hosts-allow '^a\\.b$')", "hosts_allow", (r"^a\.b$",)),
    (r"(xen-relocation-hosts-allow '^a\.b$')", "hosts_allow", (r"^a\.b$",)),
    ("(xen-relocation-tls Require)", "tls", TlsMode.REQUIRE),
    ("(xen-relocation-tls OFF)", "tls", TlsMode.OFF),
    ("(xen-relocation-tls-ca /a/ca)", "tls_ca", "/a/ca"),
    ("(xen-relocation-tls-certificate '/a b/c')", "tls_certificate", "/a b/c"),
    ("(xen-relocation-tls-key /a/k)", "tls_key", "/a/k"),
    ("(xen-relocation-l2 warn)", "l2", L2Mode.WARN),
    ("(xen-relocation-l2 Tunnel)", "l2", L2Mode.TUNNEL),
    ("(xen-relocation-tunnel-port 8472)", "tunnel_port", 8472),
    ("(xen-relocation-channels auto)", "channels", None),
    ("(xen-relocation-channels 0)", "channels", 0),
    ("(xen-relocation-channels 8)", "channels", 8),
    ("(xen-relocation-lanes 1)", "lanes", 1),
    ("(xen-relocation-compression ZSTD)", "compression", Compression.ZSTD),
    ("(xen-relocation-max-bandwidth 100)", "max_bandwidth_bytes_s", 100 * MIB),
    ("(xen-relocation-host-bandwidth 200)", "host_bandwidth_bytes_s", 200 * MIB),
    ("(xen-relocation-downtime 5)", "downtime_ms", 5),
    ("(xen-relocation-max-downtime 400)", "max_downtime_ms", 400),
    ("(xen-relocation-max-duration 90.5)", "max_duration_s", 90.5),
    ("(xen-relocation-max-rounds 30)", "max_rounds", 30),
    ("(xen-relocation-throttle yes)", "throttle", True),
    ("(xen-relocation-direct-placement no)", "direct_placement", False),
    ("(xen-relocation-switchover-timeout 2.5)", "switchover_timeout_s", 2.5),
    ("(xen-relocation-connect-timeout 3)", "connect_timeout_s", 3.0),
    ("(xen-relocation-handshake-timeout 0.1)", "handshake_timeout_s", 0.1),
    ("(xen-relocation-lookup-timeout 60)", "lookup_timeout_s", 60.0),
    ("(xen-relocation-idle-timeout 3600)", "idle_timeout_s", 3600.0),
    ("(xen-relocation-max-incoming 0)", "max_incoming", 0),
    ("(xen-relocation-max-outgoing 64)", "max_outgoing", 64),
    ("(xen-relocation-outgoing-at-once 3)", "outgoing_at_once", 3),
    ("(xen-relocation-max-connections 1)", "max_connections", 1),
    ("(xen-relocation-max-connections-per-host 2)", "max_connections_per_host", 2),
    ("(xen-relocation-max-handshakes 3)", "max_handshakes", 3),
    ("(xen-relocation-boot-file-limit 1)", "boot_file_limit_bytes", MIB),
    ("(xen-relocation-boot-store-limit 4096)", "boot_store_limit_bytes", 4096 * MIB),
    ("(xen-relocation-disk-paths '')", "disk_paths", ()),
    (
        "(xen-relocation-disk-paths /dev/mapper '/srv /data')",
        "disk_paths",
        ("/dev/mapper", "/srv", "/data"),
    ),
    ("(driver memory)", "driver", "memory"),
    ("(qemu-binary /opt/qemu/bin/qemu-kvm)", "qemu_binary", "/opt/qemu/bin/qemu-kvm"),
    ("(qemu-accelerator tcg)", "qemu_accelerator", AcceleratorChoice.TCG),
    ("(qemu-machine pc-q35-7.2)", "qemu_machine", "pc-q35-7.2"),
    ("(qemu-user libvirt-qemu)", "qemu_user", "libvirt-qemu"),
    ("(qemu-cpu Nehalem-v1)", "qemu_cpu", "Nehalem-v1"),
    ("(console-limit 64)", "console_limit_kib", 64),
    ("(dom0-min-mem 0)", "dom0_min_mem_mib", 0),
    ("(loglevel DEBUG)", "loglevel", LogLevel.DEBUG),
    ("(loglevel WARNING)", "loglevel", LogLevel.WARN),
    ("(logfile '/var/log/relocd.log')", "logfile", "/var/log/relocd.log"),
]


@pytest.mark.parametrize(("text", "field", "value"), VALUES)
def test_values(text: str, field: str, value: Any) -> None:
    assert read(text) == evolve(Config(), **{field: value})


def test_every_setting_was_tried() -> None:
    assert {field for _, field, _ in VALUES} == {key.field for key in BY_NAME.values()}


@pytest.mark.parametrize("word", ["yes", "y", "1", "on", "true", "t", "Yes", "TRUE"])
def test_yes(word: str) -> None:
    assert read(f"(xen-relocation-server {word})").relocation_server


@pytest.mark.parametrize("word", ["no", "n", "0", "off", "false", "f", "No", "FALSE"])
def test_no(word: str) -> None:
    assert not read(f"(xen-relocation-server {word})").relocation_server


@pytest.mark.parametrize(
    ("text", "line", "column", "reason"),
    [
        ("xen-relocation-port", 1, 1, "a setting is written (name value)"),
        ("\n ()", 2, 2, "a setting is written (name value)"),
        ("((a) b)", 1, 1, "a setting is written (name value)"),
        ("(xen-relocation-port 80", 1, 1, "never closed"),
        (
            "# x\n(xen-relocation-port\n  80x)",
            3,
            3,
            "'xen-relocation-port' must be a whole number from 1 to 65535",
        ),
        ("(xen-relocation-port 0)", 1, 22, "from 1 to 65535: '0'"),
        ("(xen-relocation-port 65536)", 1, 22, "from 1 to 65535: '65536'"),
        ("(xen-relocation-port -1)", 1, 22, "must be a whole number"),
        ("(xen-relocation-port 1e3)", 1, 22, "must be a whole number"),
        ("(xen-relocation-port '\u0661')", 1, 22, "must be a whole number"),
        ("(xen-relocation-port)", 1, 1, "must be a whole number"),
        ("(xen-relocation-port 80 81)", 1, 25, "takes one value"),
        ("(xen-relocation-port (80))", 1, 1, "takes no list"),
        ("(xend-relocation-port 0)", 1, 23, "'xend-relocation-port' must be a whole number"),
        ("(xen-relocation-server maybe)", 1, 24, "must be yes or no: 'maybe'"),
        ("(xen-relocation-server '')", 1, 24, "must be yes or no"),
        ("(xen-relocation-address 'a b')", 1, 25, "an IP address or host name of this host, or empty"),
        ("(xen-relocation-hosts-allow ^a$ '^b$ (c')", 1, 33, "the pattern '(c' is not a regular expression"),
        ("(xen-relocation-hosts-allow (a+)+)", 1, 1, "takes no list"),
        ("(xen-relocation-hosts-allow '(a+)+')", 1, 29, "could take very long"),
        ("(xen-relocation-hosts-allow '\\bhost')", 1, 29, "control character"),
        ("(xen-relocation-hosts-allow ((a)))", 1, 1, "takes no list"),
        ("(xen-relocation-disk-paths /dev images)", 1, 33, "absolute directories without '..' and commas"),
        ("(xen-relocation-disk-paths /dev/../etc)", 1, 28, "absolute directories"),
        ("(xen-relocation-compression lzo)", 1, 29, "must be auto, none or zstd: 'lzo'"),
        ("(xen-relocation-max-bandwidth 0.5)", 1, 31, "must be a whole number of MiB/s from 0 to 1048576"),
        ("(xen-relocation-max-downtime 0)", 1, 30, "must be a whole number of ms from 1 to 60000"),
        ("(xen-relocation-idle-timeout 0)", 1, 30, "must be a number of seconds from 1 to 3600"),
        ("(xen-relocation-idle-timeout nan)", 1, 30, "must be a number of seconds"),
        ("(xen-relocation-lanes 16)", 1, 23, "from 1 to 15"),
        ("(driver '../x')", 1, 9, "the name of an installed driver"),
        ("(qemu-binary 'qemu -S')", 1, 14, "a command or an absolute path"),
        ("(qemu-cpu host,-vmx)", 1, 11, "a CPU model of this QEMU, or empty"),
        ("(logfile relocd.log)", 1, 10, "an absolute path, or empty"),
        ("(loglevel loud)", 1, 11, "must be debug, info, warn, error or critical"),
    ],
)
def test_errors_have_a_place(text: str, line: int, column: int, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(text, source="f")
    error = caught.value
    assert reason in error.reason
    assert (error.source, error.line, error.column) == ("f", line, column)


def test_an_error_names_the_default() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("(xen-relocation-port x)", source="f")
    assert caught.value.hint == "The default is 8002."


def test_the_error_of_a_pattern_says_what_to_do() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("(xen-relocation-hosts-allow '(a+)+')", source="f")
    assert "Repeat nothing" in caught.value.hint


def test_a_file_that_is_far_too_long_is_refused() -> None:
    with pytest.raises(ConfigError, match="longer than 1048576 bytes"):
        load_config("#" * (1 << 20) + "\n", source="f")


# -- warnings ------------------------------------------------------------------------------------------


def test_an_unknown_setting_gets_the_nearest_name_offered() -> None:
    assert warnings("\n  (xen-relocation-prot 8102)") == (
        "f:2:4: there is no setting 'xen-relocation-prot', and it was overlooked. "
        "Did you mean 'xen-relocation-port'?",
    )
    assert warnings("(colour red)") == ("f:1:2: there is no setting 'colour', and it was overlooked.",)


def test_the_stray_dash_of_an_old_manual_does_not_open_the_port() -> None:
    loaded = load_config(r"(xend-relocation-hosts-allow- '^.*$')", source="f")
    assert loaded.config == Config()
    assert "Did you mean 'xend-relocation-hosts-allow'?" in loaded.warnings[0]


@pytest.mark.parametrize("second", ["xen-relocation-port", "xend-relocation-port"])
def test_the_first_of_two_counts(second: str) -> None:
    loaded = load_config(f"(xen-relocation-port 8102)\n({second} 8103)", source="f")
    assert loaded.config.relocation_port == 8102
    assert loaded.warnings == (f"f:2:2: '{second}' is set in line 1 already, and that counts",)


# -- files of xend -------------------------------------------------------------------------------------

XEND = r"""
# -*- sh -*-
# Xend configuration file.
(logfile /var/log/xen/xend.log)
(loglevel DEBUG)
#(xend-http-server no)
(xend-unix-server yes)
(xen-api-server ((9363 pam '^localhost$ example\\.com$')
                 (unix none)))
(xend-unix-path /var/lib/xend/xend-socket)
(xend-tcp-xmlrpc-server no)
(xend-relocation-server yes)
(xend-relocation-ssl-server no)
(xend-port            8000)
(xend-relocation-port 8002)
(xend-relocation-address '')
(xend-relocation-hosts-allow '^localhost$ ^localhost\\.localdomain$')
(console-limit 1024)
(network-script 'network-bridge netdev=eth1')
(vif-script vif-bridge)
(dom0-min-mem 196)
(enable-dom0-ballooning yes)
(total_available_memory 0)
(dom0-cpus 0)
(vnc-listen '127.0.0.1')
(vncpasswd '')
(keymap 'en-us')
(device-create-timeout 100)
(xend-domains-path /var/lib/xend/domains)
"""


def test_a_file_of_xend_loads() -> None:
    loaded = load_config(XEND, source="f")
    assert loaded.config == Config(
        logfile="/var/log/xen/xend.log", loglevel=LogLevel.DEBUG, dom0_min_mem_mib=196
    )
    assert len(loaded.warnings) == 16
    assert all("has no meaning for relocd" in warning for warning in loaded.warnings)
    assert loaded.warnings[0].startswith("f:7:2: 'xend-unix-server' has no meaning for relocd.")


@pytest.mark.parametrize("name", WITHOUT_MEANING)
def test_what_only_xend_had(name: str) -> None:
    text = f"(xend-relocation-server yes) (xend-relocation-hosts-allow .*)\n({name} (any (thing)) 'at all')"
    (warning,) = warnings(text)
    assert warning.startswith(f"f:2:2: '{name}' has no meaning for relocd.")


def differences(value: str) -> tuple[str, ...]:
    """The warnings, but for the one about names, which has a test of its own."""
    told = warnings(f"(xend-relocation-server yes)\n(xend-relocation-hosts-allow {value})")
    return tuple(text for text in told if "lead back" not in text)


def test_patterns_that_have_become_stricter() -> None:
    first, second = differences(r"'^localhost ^a$ 10\\.0\\.0\\.1 b.*'")
    assert first == (
        "f:2:30: with xend, '^localhost' let in every host whose name or address begins like that; relocd matches "
        "them in full. The old meaning is '^localhost.*'."
    )
    assert r"'10\\.0\\.0\\.1'" in second


@pytest.mark.parametrize("value", ["''", "", "' '", "()"])
def test_an_empty_list_has_become_stricter(value: str) -> None:
    (warning,) = differences(value)
    assert "an empty list let in every host" in warning
    assert warning.startswith("f:2:")


@pytest.mark.parametrize("value", ["'^a$  ^b$'", "' ^a$'", "'^a$ '"])
def test_an_extra_space_has_become_stricter(value: str) -> None:
    (warning,) = differences(value)
    assert "an extra space let in every host" in warning


def test_more_values_than_xend_read() -> None:
    (warning,) = differences("^a$ ^b$")
    assert warning == "f:2:34: xend read the first value only; relocd reads this one as well"


@pytest.mark.parametrize(
    "value", ["^a$", r"'10\\..* .*\\.example\\.org'", "'^localhost$ ^(a|b)$'", "'.* ^a$'"]
)
def test_names_must_lead_back_now(value: str) -> None:
    told = warnings(f"(xend-relocation-server yes)\n(xend-relocation-hosts-allow {value})")
    assert "wants the name to lead back to the address" in told[-1]
    assert "peers test HOST" in told[-1]


@pytest.mark.parametrize(
    "value", [r"'^localhost$ ^localhost\\.localdomain$'", r"'^10\\.0\\..*$ .*'", "192.168.*"]
)
def test_addresses_and_everybody_need_no_names(value: str) -> None:
    assert warnings(f"(xend-relocation-server yes)\n(xend-relocation-hosts-allow {value})") == ()


def test_the_new_spelling_is_not_compared_with_xend() -> None:
    assert warnings("(xen-relocation-hosts-allow '^localhost  10')") == ()


def test_defaults_of_xend_that_were_different() -> None:
    assert warnings("(xend-relocation-port 8002)") == (
        "f: xend let in every host without xend-relocation-hosts-allow; relocd lets in this host only",
        "f: xend did not listen without (xend-relocation-server yes); relocd does, unless it is no",
    )


# -- any text ------------------------------------------------------------------------------------------

forms = st.builds(
    "({} {})".format,
    st.sampled_from([*BY_NAME, *WITHOUT_MEANING]),
    st.text() | st.sampled_from(["yes", "1", "''", "()", "(a b)", "/srv", "auto", "'(' ')'", "9" * 30]),
)


@given(st.lists(forms, max_size=4).map("\n".join) | st.text())
def test_any_text_is_a_config_or_a_config_error(text: str) -> None:
    with contextlib.suppress(ConfigError):
        assert isinstance(load_config(text, source="f").config, Config)
