"""What becomes of a domain whose guest powers off, reboots or crashes. Pure: tables, no QEMU.

Where the answer is "destroy", QEMU ends by itself, also while no daemon runs. Where it is anything else, QEMU
stays, stopped, and the daemon acts when it learns of it: at once, or when it is started again.
"""

from __future__ import annotations

import enum

from relocd.drivers.qemu.options import option
from relocd.model import Action, DomainConfig, DomainState


class Cause(enum.StrEnum):
    """Why a guest stopped by itself."""

    POWEROFF = "power-off"
    REBOOT = "reboot"
    CRASH = "crash"


#: Which state a domain is in then, as long as its remains are kept.
ENDED_AS = {
    Cause.POWEROFF: DomainState.SHUTDOWN,
    Cause.REBOOT: DomainState.SHUTDOWN,
    Cause.CRASH: DomainState.CRASHED,
}

#: QEMU's run states that need a reset before ``cont`` (qapi/run-state.json), and what led to them.
RUN_STATES = {
    "shutdown": Cause.POWEROFF,
    "guest-panicked": Cause.CRASH,
    "internal-error": Cause.CRASH,
}

#: Reasons in the SHUTDOWN event (qapi/run-state.json, ShutdownCause) that are not a power-off.
SHUTDOWN_REASONS = {
    "guest-reset": Cause.REBOOT,
    "guest-panic": Cause.CRASH,
}


def action(config: DomainConfig, cause: Cause) -> Action:
    """What the domain's configuration wants."""
    wanted = {
        Cause.POWEROFF: config.on_poweroff,
        Cause.REBOOT: config.on_reboot,
        Cause.CRASH: config.on_crash,
    }
    return wanted[cause]


def action_when_found(config: DomainConfig, cause: Cause) -> Action:
    """What to do with a guest that ended while no daemon ran.

    Then a reboot that does not restart looks like a power-off; if one of them is to be preserved, both are.
    """
    if cause is not Cause.CRASH and Action.PRESERVE in (config.on_poweroff, config.on_reboot):
        return Action.PRESERVE
    return action(config, cause)


def action_option(config: DomainConfig) -> str:
    """The value of QEMU's ``-action``."""
    reset = config.on_reboot is Action.RESTART
    # A reboot that does not restart is turned into a shutdown, so either one may be what has to be kept.
    ends = config.on_poweroff is Action.DESTROY and config.on_reboot in (Action.DESTROY, Action.RESTART)
    return option(
        "",
        reboot="reset" if reset else "shutdown",
        shutdown="poweroff" if ends else "pause",
        panic="shutdown" if config.on_crash is Action.DESTROY else "pause",
    )
