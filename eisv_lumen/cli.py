"""`eisv-lumen`: what a device or a community user does."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from eisv_lumen import __version__
from eisv_lumen.errors import ConfigurationError, exit_with_reason

if TYPE_CHECKING:
    import numpy as np

    from eisv_lumen.device.awareness import Spoken
    from eisv_lumen.device.home import Home
    from eisv_lumen.windows import Windows


def main() -> None:
    """Entry point of the command."""
    exit_with_reason(_main)


def _main() -> int | None:
    arguments = _parser().parse_args()
    return arguments.command(arguments)


def pull(arguments: argparse.Namespace) -> None:
    """Install the newest release: find, download by commit, verify, test, switch."""
    from eisv_lumen.device.runtime import check_word_size
    from eisv_lumen.device.settings import Settings
    from eisv_lumen.device.updater import Updater
    from eisv_lumen.hub_client import read_token
    from eisv_lumen.signing import TrustedKeys

    check_word_size()
    home = _home(arguments)
    token = read_token(arguments.token_file)
    trusted = TrustedKeys.read(arguments.trust) if arguments.trust is not None else None
    known = home.read("device.json")
    chosen = {"repo_id": arguments.repo, "hub": arguments.hub, "channel": arguments.channel}
    wanted = {**known, **{name: value for name, value in chosen.items() if value is not None}}
    settings = Settings.of(wanted) if "repo_id" in wanted else None
    if trusted is not None:
        home.give_trust(trusted)
    if settings is not None and wanted != known:
        home.update("device.json", **wanted)
    if not sys.stderr.isatty():
        _quiet_downloads()
    outcome = Updater(home, token, _progress).pull(retry=arguments.retry)
    _print(arguments, vars(outcome) | {"selftest": outcome.selftest and vars(outcome.selftest)}, outcome.note)


def express(arguments: argparse.Namespace) -> None:
    """Hear a window, live or from a log, and say what it makes Lumen say."""
    from eisv_lumen.device import memory, service

    home = None if arguments.student is not None and arguments.home is None else _home(arguments)
    voice = service.open_voice(
        home, arguments.student, gate=arguments.gate, generator=_generator(arguments.seed), warn=_progress
    )
    if arguments.log is not None:
        window = service.newest_window(arguments.log, count=arguments.states, timezone=arguments.timezone)
    else:
        window = _listen(arguments.states, arguments.every)
    spoken = voice.speak(window)
    record = {
        **spoken.to_dict(),
        "n_states": int(window.counts[0]),
        "rss_mb": memory.resident_mb(),
        "peak_rss_mb": memory.peak_mb(),
        "package": __version__,
    }
    _print(arguments, record, _spoken_line(spoken))
    if home is not None:
        service.remember_rules(home, voice, spoken)


def run(arguments: argparse.Namespace) -> None:
    """Listen on and on, speak, and keep a journal; Ctrl-C or a plain kill ends it."""
    import signal

    from eisv_lumen.device import service
    from eisv_lumen.device.live import LiveTelemetry
    from eisv_lumen.device.probation import Probation

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    home = _home(arguments)
    probation = Probation(home, _progress)
    try:
        probation.start()
        voice = service.open_voice(
            home, gate=arguments.gate, generator=_generator(arguments.seed), warn=_progress
        )
        states = service.live_states(LiveTelemetry().stream(arguments.every))
        told = service.Service(
            home,
            voice,
            stride=arguments.stride,
            told=lambda spoken: _print(arguments, spoken.to_dict(), _spoken_line(spoken)),
            warn=_progress,
            probation=probation,
        )
        told.run(states, arguments.count)
    finally:
        probation.end()  # what fails in words is the machine's fault, and convicts no release


def status(arguments: argparse.Namespace) -> None:
    """Show what is installed, verified anew, and what the updater remembers."""
    from eisv_lumen.device.status import lines
    from eisv_lumen.device.status import status as device_status

    described = device_status(_home(arguments))
    _print(arguments, described, "\n".join(lines(described)))


def pin(arguments: argparse.Namespace) -> None:
    """Want exactly this version, older or newer, until unpin."""
    from eisv_lumen.device.wishes import set_pin

    wanted = None if arguments.none else arguments.wanted
    _print(arguments, {"pin": wanted}, set_pin(_home(arguments), wanted))


def unpin(arguments: argparse.Namespace) -> None:
    """Want the newest release again."""
    from eisv_lumen.device.wishes import set_pin

    _print(arguments, {"pin": None}, set_pin(_home(arguments), None))


def channel(arguments: argparse.Namespace) -> None:
    """Want released versions only (stable), or prereleases too (beta)."""
    from eisv_lumen.device.wishes import set_channel

    _print(arguments, {"channel": arguments.name}, set_channel(_home(arguments), arguments.name))


def rollback(arguments: argparse.Namespace) -> None:
    """Go back to the release before this one."""
    from eisv_lumen.device.updater import Updater

    outcome = Updater(_home(arguments)).rollback()
    _print(arguments, vars(outcome), outcome.note)


def _listen(states: int, every: float) -> "Windows":
    from eisv_lumen.device.live import LiveTelemetry
    from eisv_lumen.device.service import WARM_UP, collect, live_states

    telemetry = LiveTelemetry()
    _progress(f"listening: {states} states, {every:g} s apart, after {WARM_UP} readings to warm up")
    return collect(live_states(telemetry.stream(every)), states)


def _home(arguments: argparse.Namespace) -> "Home":
    from eisv_lumen.device.home import Home, default_folder

    return Home(arguments.home or default_folder())


def _generator(seed: int | None) -> "np.random.Generator":
    import numpy as np

    return np.random.default_rng(seed)


def _spoken_line(spoken: "Spoken") -> str:
    version = spoken.version or "no model"
    why = f"; {spoken.reason}" if spoken.reason else ""
    return (
        f"[{spoken.source}] {spoken.expression}   ({' '.join(spoken.lumen_words)})   {spoken.shape}, "
        f"confidence {spoken.confidence:.2f}, {version}{why}"
    )


def _print(arguments: argparse.Namespace, record: dict, line: str) -> None:
    print(json.dumps(record, ensure_ascii=False) if arguments.json else line, flush=True)


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _quiet_downloads() -> None:
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()


def _positive(kind: Callable[[str], float], name: str) -> Callable[[str], float]:
    """A number above 0 for argparse, which names the function in its message."""

    def parse(text: str) -> float:
        value = kind(text)
        if not 0 < value < float("inf"):
            raise ValueError(text)
        return value

    parse.__name__ = f"{name} above 0"
    return parse


_seconds, _count = _positive(float, "number"), _positive(int, "whole number")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        raise ConfigurationError(
            found=f"options that cannot be used: {message}",
            expected=self.format_usage().strip().removeprefix("usage: "),
            next=f"{self.prog} --help",
        )


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="eisv-lumen", description="The learned voice of an embodied agent.")
    parser.add_argument("--version", action="version", version=f"eisv-lumen {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    common = _Parser(add_help=False)
    common.add_argument("--home", type=Path, help="the device's folder (default: EISV_LUMEN_HOME)")
    common.add_argument("--json", action="store_true", help="print one JSON object per line")

    def command(name: str, function: Callable[[argparse.Namespace], None]) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name, parents=[common], help=function.__doc__, description=function.__doc__
        )
        added.set_defaults(command=function)
        return added

    _add_pull(command("pull", pull))
    _add_express(command("express", express))
    _add_run(command("run", run))
    command("status", status)
    command("rollback", rollback)
    pinned = command("pin", pin).add_mutually_exclusive_group(required=True)
    pinned.add_argument("wanted", nargs="?", metavar="VERSION", help="such as 0.1.0")
    pinned.add_argument("--none", action="store_true", help="the newest release again, as unpin")
    command("unpin", unpin)
    command("channel", channel).add_argument("name", choices=("stable", "beta"))
    return parser


def _add_pull(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--hub", help="address of the Hub, remembered (default: HF_ENDPOINT or the public Hub)"
    )
    parser.add_argument(
        "--repo", help="the student's repository, such as hikewa/eisv-lumen-student; remembered"
    )
    parser.add_argument("--trust", type=Path, help="file with the public keys to believe; remembered")
    parser.add_argument("--channel", choices=("stable", "beta"), help="beta takes prereleases; remembered")
    parser.add_argument(
        "--token-file", type=Path, help="Hub token for private repositories (default: HF_TOKEN)"
    )
    parser.add_argument("--retry", action="store_true", help="try releases again that were refused or left")


def _add_express(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--live", action="store_true", help="hear this machine's telemetry (Linux)")
    source.add_argument("--log", type=Path, help="hear the newest states of a sensor log (CSV)")
    parser.add_argument("--student", type=Path, help="a student folder instead of the installed release")
    parser.add_argument("--states", type=_states, default=20, help="states to hear, 4 to 20 (default: 20)")
    parser.add_argument("--every", type=_seconds, default=0.5, help="seconds between live states")
    parser.add_argument("--timezone", default="UTC", help="zone of a log's times that name none")
    _add_voice(parser)


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--every", type=_seconds, default=2.0, help="seconds between states (default: 2)")
    parser.add_argument("--stride", type=_count, default=10, help="states between expressions")
    parser.add_argument("--count", type=_count, help="end after so many expressions")
    _add_voice(parser)


def _add_voice(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--gate", type=float, default=0.6, help="least confidence for the model (default: 0.6)"
    )
    parser.add_argument("--seed", type=int, help="draw the same expressions again")


def _states(text: str) -> int:
    if not 4 <= int(text) <= 20:
        raise ValueError(text)
    return int(text)


_states.__name__ = "number from 4 to 20"  # argparse names the type in its message


if __name__ == "__main__":
    main()
